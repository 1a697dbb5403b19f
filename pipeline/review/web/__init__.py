"""The reading list in a browser: pages, pixels and decisions over HTTP.

FastAPI serves Jinja2 templates; htmx replaces parts of them, so there is no second program in the browser, no build
step, and nothing to fetch from anywhere. Pixels are displayed by cornerstone-core 2.6.1 (MIT, 92 kB): 8 and 16 bits
with window and level, no GPU needed, images as large as a canvas may be, one file, no eval, no worker. Its authors now
develop Cornerstone3D, and this library is finished. It was compared with these before it was chosen:

- NiiVue 0.69 (BSD-2, 2.9 MB) needs WebGL 2 and keeps slices in 3D textures, whose edge many GPUs limit to 2048 pixels:
  a radiograph is larger.
- Cornerstone3D 5.14 (MIT) is released as ES modules that need a bundler and vtk.js: we would ship our own build.
- dwv 0.36 (GPL-3, 609 kB): its licence would apply to this program.

Everything runs under `script-src 'self'` without exceptions: no inline script, no eval, no WebAssembly, no worker.
"""
