"""REQUEST IN: reads requests, writes answers. The only package that imports aiohttp.web."""
