"""Bookinfo's details service: the facts of a book, whatever its id.  `python details.py PORT`.

Answers as Istio's samples/bookinfo/src/details/details.rb.  Left out: ENABLE_EXTERNAL_BOOK_SERVICE, which
asks a server on the internet.
"""

import sys

import service
import wire


def details(_request: wire.Request, segment: str) -> service.Response:
    """The book's details; 400 where the id is not a number."""
    product_id = service.number(segment)
    if product_id is None:
        return service.as_json({"error": "please provide numeric product id"}, 400)
    return service.as_json(
        {
            "id": product_id,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }
    )


def health(_request: wire.Request) -> service.Response:
    """That the service is up."""
    return service.as_json({"status": "Details is healthy"})


if __name__ == "__main__":
    service.run((("GET", "/details/{}", details), ("GET", "/health", health)), sys.argv)
