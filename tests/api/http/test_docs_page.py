"""The page `/docs` works without any other server."""

import re

import httpx

from tests.api.service import Service


def test_the_page_needs_no_other_server(embedded: Service) -> None:
    with httpx.Client(base_url=embedded.url, trust_env=False) as client:
        page = client.get("/docs")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert (
            "'unsafe-inline'" not in policy
            and "default-src 'none'" in policy
            and "script-src 'self';" in policy
            and "://" not in policy
        )
        assert "://" not in page.text and not re.search(r"<script>|\son\w+=", page.text)
        needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(needed) == 4
        for path in needed:
            found = client.get(f"/{path}")
            assert found.status_code == 200 and len(found.content) > 50, path
        assert "javascript" in client.get("/docs/files/swagger-ui-bundle.js").headers["content-type"]
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
        assert client.get("/redoc").status_code == 404
