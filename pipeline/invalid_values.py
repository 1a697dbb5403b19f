"""Sentences about invalid values of a configuration or of a command's options, in place of the validator's own text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

# By the type of pydantic's error; a name in braces is of its context.
_RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "path_type": "must be a path",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "missing": "is missing, and has no default",
    "extra_forbidden": "does not exist. Check its spelling",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a section with names and values",
    "model_type": "must be a section with names and values",
    "union_tag_invalid": "{discriminator} is {tag!r}, and must be one of {expected_tags}",
    "union_tag_not_found": "must name its kind in {discriminator}",
    "none_required": "must be left out",
}
_OWN = "value_error"  # raised by a validator of ours, in a sentence already


def explain(error: ValidationError, what: str) -> str:
    """Return one line for each invalid field of `what`: its place, the rule, and the value given."""
    rules: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        if item["type"] == "too_short" and _is_within(item["loc"], error):
            continue  # only because the invalid entries do not count
        # a field of several kinds (a word, or a section) has an error for each, whose place names the kind in brackets
        where = ".".join(str(part) for part in item["loc"] if "[" not in str(part)) or "(top level)"
        # a section that contradicts itself is not repeated: its reason names the field
        given = "" if isinstance(item["input"], dict) or item["type"] == "missing" else f" (got {item['input']!r:.80})"
        rules.setdefault((where, given), []).append(state_rule(item))
    lines = [f"  {where}: {', or '.join(reasons)}{given}" for (where, given), reasons in rules.items()]
    return "\n".join([f"{what} is not valid:", *lines])


def _is_within(loc: tuple[int | str, ...], error: ValidationError) -> bool:
    """Return whether an entry of the list at this place is invalid itself."""
    return any(other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in error.errors())


def explain_options(error: ValidationError, options: Mapping[str, str] | None = None) -> str:
    """Return sentences about the invalid options of a command, with the value of each.

    Args:
        error: of the configuration that the options fill.
        options: name of the option by the name of its field, where it is not `--field-name`.
    """
    return " ".join(f"{_option_sentence(item, options or {})}." for item in error.errors())


def state_rule(item: Mapping[str, Any]) -> str:
    """Return the rule that a value breaks, without a full stop; the validator's text where the kind has no words."""
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == _OWN:
        return str(item["msg"]).removeprefix("Value error, ").removesuffix(".")
    if kind.startswith("date"):
        return "must be a date, as YYYY-MM-DD"
    if kind in ("string_too_short", "too_short"):
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} {_unit(kind, least)}"
    if kind in ("string_too_long", "too_long"):
        most = context["max_length"]
        return f"must have at most {most} {_unit(kind, most)}"
    if kind not in _RULES:
        return str(item["msg"])
    return _RULES[kind].format(**context)


def _unit(kind: str, count: int) -> str:
    one, several = ("character", "characters") if kind.startswith("string") else ("entry", "entries")
    return one if count == 1 else several


def _option_sentence(item: Mapping[str, Any], options: Mapping[str, str]) -> str:
    rule = state_rule(item)
    if not item["loc"]:  # the options contradict each other
        return rule[:1].upper() + rule[1:]
    field = str(item["loc"][0])
    name = options.get(field, f"--{field.replace('_', '-')}")
    given = "" if item["type"] == "missing" else f" {str(item['input'])!r:.80}"
    return f"{name}{given} {rule}"
