"""What a schema cannot describe: which users, products and uploads exist, and the bytes of an image.
Without these hooks, no valid order would name an existing user or product."""

import json
import os
import re
import unicodedata
import uuid

import schemathesis
from hypothesis import strategies

KNOWN = json.loads(os.environ["HEADWATER_KNOWN"])
UPLOAD = "/images/"
# The resources at paths with an id. They are not erased, because later requests need them.
THINGS = {
    "/users/{id}": KNOWN["user"],
    "/users/{id}/purchases": KNOWN["user"],
    "/products/{id}": KNOWN["product"],
    "/orders/{id}": KNOWN["order"],
    "/images/{id}": KNOWN["image"].removeprefix(UPLOAD),
}
IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\0\0\0\0WEBP",
    "image/svg+xml": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


for kind, image in IMAGES.items():
    schemathesis.openapi.media_type(kind, strategies.just(image))


def visible(text):
    """A name without the characters that Unicode has special rules for: marks and joiners."""
    seen = "".join(c for c in text if unicodedata.category(c)[0] in "LNPS")
    return seen.replace("\u2800", "").replace("\U0001d159", "") or "x"


def is_positive(case):
    return case.meta is None or case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    if not is_positive(case):
        return
    path, query, headers, body = case.operation.path, case.query or {}, case.headers or {}, case.body
    if path in THINGS and case.method != "DELETE":
        case.path_parameters["id"] = THINGS[path]
    if query.get("after") is not None:
        query["after"] = KNOWN["after"]
    if query.get("user_id") is not None:
        query["user_id"] = KNOWN["user"]
    for name in headers:
        if name.lower() == "headwater-position":
            headers[name] = KNOWN["after"]
        # Use each key once, or the second request would have to repeat the first.
        if name.lower() == "idempotency-key":
            headers[name] = (str(headers[name]) + str(uuid.uuid4()))[-255:]
    if not isinstance(body, dict):
        return
    if path == "/order":
        body["user"], body["product"] = KNOWN["user"], [KNOWN["product"]]
        # As for an Idempotency-Key.
        body.pop("key", None)
    if "user_id" in body:
        body["user_id"] = KNOWN["user"]
    if "product_ids" in body:
        body["product_ids"] = [KNOWN["product"] for _ in body["product_ids"]]
    for field in ("name", "title"):
        if isinstance(body.get(field), str):
            body[field] = visible(body[field])
    # The rules for letters and domains are longer than a pattern.
    if "email" in body and not re.fullmatch(r"[!-?A-~]+@([A-Za-z0-9]{1,60}\.?){1,3}(?<!\.)", body["email"]):
        body["email"] = f"{uuid.uuid4()}@example.com"
    if str(body.get("image", "")).startswith(UPLOAD):
        body["image"] = KNOWN["image"]
