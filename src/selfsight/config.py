"""Settings: frozen pydantic models, written as YAML, overridden as `key.sub=value`.

A component owns the model of its own settings; a misspelt key names the nearest right one.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from selfsight.errors import ConfigError, nearest


class Settings(BaseModel):
    """Base of every settings model: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def build(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate `values`; a `ConfigError` says which key of `where` is wrong, what it got and what would be right."""
    _check_keys(model, values, where)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_path(first["loc"], values))
        got = "" if isinstance(first["input"], Mapping) else f" Got {first['input']!r}."
        at, why = f"{where}: '{key}'" if key else where, first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{at}: {why}.{got}") from None


def _path(parts: Sequence[int | str], values: Any) -> list[str]:
    """pydantic's path of a setting, without the names of the models that it chose among."""
    out = []
    for part in parts:
        if isinstance(values, Mapping) and part not in values and part == values.get("name"):
            continue
        out.append(str(part))
        values = values.get(part) if isinstance(values, Mapping) else None
    return out


def load(model: type[S], path: Path | str) -> S:
    return build(model, read_yaml(path), str(path))


def read_yaml(path: Path | str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of settings") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML ({str(error).splitlines()[0]})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, got {type(values).__name__}")
    return values


def dump(settings: Settings) -> str:
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`["views.local_count=4"]` to `{"views": {"local_count": 4}}`; values are YAML."""
    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair!r}: expected key=value, for example --set views.local_count=4")
        node = tree
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {pair!r}: '{parent}' was given a value of its own before; give one or the other")
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {pair!r}: the value is no YAML") from None
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it, dictionaries recursively."""
    out = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = merge(out[key], value)
        else:
            out[key] = value
    return out


def _check_keys(model: type[BaseModel], values: Mapping[str, Any], where: str, prefix: str = "") -> None:
    for key, value in values.items():
        if key not in model.model_fields:
            raise ConfigError(f"{where}: no setting '{prefix}{key}'. {nearest(str(key), model.model_fields)}")
        inner = _model_of(model.model_fields[key], value, where, f"{prefix}{key}")
        if inner is None or not isinstance(value, Mapping):
            continue
        if typing.get_origin(model.model_fields[key].annotation) is dict:
            for name, one in value.items():
                if isinstance(one, Mapping):
                    _check_keys(inner, one, where, f"{prefix}{key}.{name}.")
        else:
            _check_keys(inner, value, where, f"{prefix}{key}.")


def _model_of(field: FieldInfo, value: Any, where: str, key: str) -> type[BaseModel] | None:
    """The settings model that `value` will be read into. Of several, the one whose `name` it gives."""
    args = typing.get_args(field.annotation) or (field.annotation,)
    models = [m for m in args if isinstance(m, type) and issubclass(m, BaseModel)]
    if len(models) <= 1 or not isinstance(value, Mapping):
        return models[0] if models else None
    by_name = {m.model_fields["name"].default: m for m in models}
    if value.get("name") not in by_name:
        raise ConfigError(f"{where}: {key}.name: there is no '{value.get('name')}'. {nearest(str(value.get('name')), by_name)}")
    return by_name[value["name"]]
