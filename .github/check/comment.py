"""Write a Markdown file as a comment on the pull request that GitHub runs this for, or over the one of last time.

    python comment.py FILE

Where there is no pull request nothing is written. Where GitHub refuses, as it does for forks, that is a warning.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

MARK = "<!-- hwnas check, {job} -->"
A_PAGE = 100


def main(file: str) -> None:
    event = json.loads(Path(os.environ.get("GITHUB_EVENT_PATH", os.devnull)).read_text() or "{}")
    number = event.get("pull_request", {}).get("number")
    if number is None:
        print("no pull request, so no comment")
        return
    job = os.environ.get("GITHUB_JOB", "").replace("--", "")
    body = MARK.format(job=job) + "\n" + Path(file).read_text(encoding="utf-8")
    comments = f"issues/{int(number)}/comments"
    try:
        known = earlier(comments, MARK.format(job=job))
        if known is None:
            ask("POST", comments, {"body": body})
        else:
            ask("PATCH", f"issues/comments/{known}", {"body": body})
    except urllib.error.URLError as error:
        print(f"::warning title=hwnas::the comment was not written: {error}; the job needs pull-requests: write")


def earlier(comments: str, mark: str) -> int | None:
    """The number of the comment that begins with a mark."""
    page = 1
    while True:
        found = ask("GET", f"{comments}?per_page={A_PAGE}&page={page}")
        for each in found:
            if (each.get("body") or "").startswith(mark):
                return int(each["id"])
        if len(found) < A_PAGE:
            return None
        page += 1


def ask(method: str, path: str, content: object = None) -> list[dict[str, object]]:
    """Call GitHub's API of the repository."""
    root, repository = os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"]
    request = urllib.request.Request(
        f"{root}/repos/{repository}/{path}",
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['HWNAS_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main(sys.argv[1])
