"""The HTML of Bookinfo's product page: what the services answered in, a whole document out.

Every text that came off the wire goes through `text`.  Documents may lack anything or hold other types than
Bookinfo's: what is missing stays empty, and stars are drawn from 0 to 5 whatever number was sent.
"""

from collections.abc import Mapping

_DETAILS = (
    ("Author", "author"),
    ("Year", "year"),
    ("Type", "type"),
    ("Pages", "pages"),
    ("Publisher", "publisher"),
    ("Language", "language"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
)
_SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Simple Bookstore App</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/bookinfo.css">
</head>
<body>
<header><a class="brand" href="/productpage">Bookinfo</a>{account}</header>
<main>
{content}
</main>
</body>
</html>
"""
_SIGN_IN = """
<details class="account"><summary>Sign in</summary>
<form method="post" action="/login">
<label>User name <input name="username" autocomplete="username" maxlength="64" required></label>
<label>Password <input name="passwd" type="password" autocomplete="off" placeholder="any, or none"></label>
<button>Sign in</button>
</form>
</details>"""


def text(value: object) -> str:
    """``value`` as text that is safe in HTML, also inside a quoted attribute."""
    shown = "" if value is None else str(value)
    for character, reference in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        shown = shown.replace(character, reference)
    return shown


def product_page(
    product: Mapping[str, str],
    details: tuple[int, object],
    reviews: tuple[int, object],
    user: str,
    pod: str,
    request_id: str | None,
) -> str:
    """The page of a product; ``details`` and ``reviews`` are each a status and the document that came with it.

    ``product`` is this service's own: its summary is HTML and not escaped.
    """
    content = f"""<section class="book"><h1>{text(product["title"])}</h1>
<p>{product["descriptionHtml"]}</p></section>
<div class="columns">
{_details_card(*details)}
{_reviews_card(*reviews)}
</div>
<p class="origin">This page was put together by <code>{text(pod)}</code>{_of_request(request_id)}.</p>"""
    return _SHELL.format(account=_account(user), content=content)


def index_page(calls: tuple[tuple[str, str, str], ...], user: str) -> str:
    """The entrance: who calls whom at which address, and the way to the product."""
    rows = "".join(
        f"<tr><td>{text(caller)}</td><td>{text(callee)}</td><td><code>{text(address)}</code></td></tr>"
        for caller, callee, address in calls
    )
    content = f"""<section class="book"><h1>A simple bookstore</h1>
<p>One page, put together from the answers of several services:</p>
<table><thead><tr><th>Service</th><th>calls</th><th>at</th></tr></thead><tbody>{rows}</tbody></table>
<p>Ask for it as a <a href="/productpage?u=normal">normal user</a> or a
<a href="/productpage?u=test">test user</a>.</p></section>"""
    return _SHELL.format(account=_account(user), content=content)


def _account(user: str) -> str:
    if not user:
        return _SIGN_IN
    return f'<p class="account"><span>{text(user)}</span> <a href="/logout">Sign out</a></p>'


def _of_request(request_id: str | None) -> str:
    return f" for request <code>{text(request_id)}</code>" if request_id else ""


def _details_card(status: int, document: object) -> str:
    details = document if isinstance(document, dict) else {}
    if status != 200:
        return _error_card("details", "Error fetching product details!", details)
    rows = "".join(f"<dt>{label}</dt><dd>{text(details.get(key))}</dd>" for label, key in _DETAILS)
    return f'<section class="card" id="details"><h2>Book Details</h2><dl>{rows}</dl></section>'


def _error_card(name: str, title: str, document: Mapping[str, object]) -> str:
    return f'<section class="card error" id="{name}"><h2>{title}</h2><p>{text(document.get("error"))}</p></section>'


def _reviews_card(status: int, document: object) -> str:
    reviews = document if isinstance(document, dict) else {}
    if status != 200:
        return _error_card("reviews", "Error fetching product reviews!", reviews)
    listed = reviews.get("reviews")
    quotes = "".join(_quote(item) for item in listed if isinstance(item, dict)) if isinstance(listed, list) else ""
    return f"""<section class="card" id="reviews"><h2>Book Reviews {_version(reviews.get("podname"))}</h2>
{quotes}
<p class="origin">Reviews served by <code>{text(reviews.get("podname"))}</code></p></section>"""


def _version(pod: object) -> str:
    """A badge with the version that the pod's name tells (reviews-v2-…), where it tells one."""
    for part in str(pod).split("-"):
        if part[:1] == "v" and part[1:].isdecimal():
            return f'<span class="badge">{text(part)}</span>'
    return ""


def _quote(review: Mapping[str, object]) -> str:
    return f"""<blockquote><p>{text(review.get("text"))}</p>
<footer><cite>{text(review.get("reviewer"))}</cite>{_stars(review.get("rating"))}</footer></blockquote>
"""


def _stars(rating: object) -> str:
    if not isinstance(rating, dict):
        return '<span class="unrated">no stars in this version</span>'
    if "error" in rating:
        return f'<span class="unrated">{text(rating["error"])}</span>'
    stars = rating.get("stars")
    full = min(max(stars, 0), 5) if isinstance(stars, int) else 0
    color = str(rating.get("color"))
    # Only a colour's name may enter a style attribute: escaping does not stop CSS.
    style = f' style="color:{color}"' if color.isascii() and color.isalpha() else ""
    said = f"{full} of 5, {text(color)} stars"
    glyphs = "★" * full + "☆" * (5 - full)
    return f'<span class="stars"{style} aria-hidden="true">{glyphs}</span><span class="said">{said}</span>'
