"""Write models/spec/catalogue.json and docs/methods.md."""

import json
from pathlib import Path

from worker.distillation.catalogue.contents import text
from worker.distillation.catalogue.page import page

ROOT = Path(__file__).parents[3]
JSON_PATH, PAGE_PATH = ROOT / "models" / "spec" / "catalogue.json", ROOT / "docs" / "methods.md"


def main() -> None:
    content = text()
    JSON_PATH.write_text(content, encoding="utf-8")
    PAGE_PATH.write_text(page(json.loads(content)), encoding="utf-8")


if __name__ == "__main__":
    main()
