"""The reading list in a browser: pages, pixels and decisions over HTTP.

FastAPI serves Jinja2 templates; htmx replaces parts of them, so that there is no second program in the browser, no
build step, and nothing to fetch from anywhere. What moves pixels is cornerstone-core 2.6.1 (MIT, 92 kB): 8 and 16 bits
with window and level, no GPU needed, images as large as a canvas may be, one file, no eval, no worker. Its authors now
develop Cornerstone3D, and this one is finished. Compared with it before choosing:

- NiiVue 0.69 (BSD-2, 2.9 MB) needs WebGL 2 and keeps slices in 3D textures, whose edge many GPUs limit to 2048 pixels:
  a radiograph has more.
- Cornerstone3D 5.14 (MIT) is released as ES modules that need a bundler and vtk.js: what ships would be our build.
- dwv 0.36 (GPL-3, 609 kB): its licence would be this program's.

All of it runs under `script-src 'self'` without exceptions: no inline script, no eval, no WebAssembly, no worker.
"""
