"""Holds the OpenAPI document at an address to the specification, and its examples to its schemas."""

import json
import sys
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

with urllib.request.urlopen(sys.argv[1]) as answer:
    document = json.load(answer)

faults = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in OpenAPIV31SpecValidator(document).iter_errors()]

seen = 0
for path, operations in document["paths"].items():
    for method, operation in operations.items():
        bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for name, body in bodies.items():
            for media in body.get("content", {}).values():
                # The schemas refer to components of the whole document.
                validator = Draft202012Validator({**media["schema"], "components": document["components"]})
                values = [example["value"] for example in media.get("examples", {}).values()]
                values += [media["example"]] if "example" in media else []
                for value in values:
                    seen += 1
                    faults += [f"{method} {path} {name}: {e.message}" for e in validator.iter_errors(value)]

if seen < 20:
    faults.append(f"only {seen} examples were found")
print("\n".join(faults) or "ok")
