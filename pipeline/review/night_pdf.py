"""The report of a night as PDF (A4, tagged for screen readers), made from its page by WeasyPrint."""

from __future__ import annotations

from pipeline.errors import ConfigError

VARIANT = "pdf/ua-1"


def write_pdf(page: str) -> bytes:
    """Return a page of HTML as PDF; a picture or a style that it asks for is left out, from the disk too.

    Raises:
        ConfigError: WeasyPrint, or the library Pango that it draws text with, is not installed.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise ConfigError(
            "A PDF needs WeasyPrint, which is not installed. Install the extra: pip install 'nightread[pdf]'; or write "
            "the page with --html and print it from a browser"
        ) from None
    except OSError as error:  # its shared libraries are opened when it is imported
        raise ConfigError(
            f"A PDF needs the library Pango, which cannot be opened ({str(error)[:80]}). Install it: apt-get install "
            "libpangoft2-1.0-0 libharfbuzz-subset0; or write the page with --html and print it from a browser"
        ) from None
    nothing = URLFetcher(allowed_protocols=())
    document: bytes = HTML(string=page, url_fetcher=nothing).write_pdf(pdf_variant=VARIANT)
    return document
