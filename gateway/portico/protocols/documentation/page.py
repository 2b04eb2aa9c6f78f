"""The pages for people: a header in plain HTML, and swagger-ui below it on one of the documents. Used by
`documentation`. Whatever comes from a model's files is escaped; nothing is loaded from anywhere else.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from urllib.parse import quote

from portico import __version__
from portico.protocols.documentation.caller import Caller
from portico.protocols.documentation.calls import Dialect, dialects
from portico.protocols.documentation.handler import TAKES
from portico.protocols.documentation.model import client_signatures, described
from portico.protocols.documentation.tensors import shown_shape
from portico.protocols.open_inference import describe
from portico.routing import DEFAULT_SIGNATURE, LOADING, Model, RouteTable, Server, Signature, State, TensorSpec, Version

ASSETS = "/docs/assets"

_TONES = {State.READY: "good", State.LOADING: "waiting", State.UNAVAILABLE: "waiting", State.DRAINING: "waiting"}


def models_page(table: RouteTable | None) -> str:
    """The page of everything; `table` is None as long as the gateway has no routes."""
    models = [] if table is None else [model for model in table.models.values() if not model.is_leaving]
    rows = [_model_row(model) for model in sorted(models, key=lambda model: model.name)]
    if rows:
        listed = _table(("Model", "Version", "Server", "State", "Labels"), rows)
    elif table is None:
        listed = "<p>The gateway has not received its routes from the controller yet. Reload this page in a moment.</p>"
    else:
        listed = "<p>There are no models yet. They are served as soon as they lie in the model repository.</p>"
    header = (
        f'<p class="over">Portico {escape(__version__)}</p><h1>Models</h1>'
        "<p>One door to TensorFlow Serving and TorchServe. Each model has a page of its own, with its inputs, its "
        "outputs and calls to copy; below is everything that the door answers.</p>"
    )
    return _page("Portico", "/openapi.json", f"<header>{header}</header><section>{listed}</section>")


def model_page(model: Model, version: str, address: str, scheme: str) -> str:
    """The page of a model, or of one version of it. `address` is the host, and port, that the page was asked for at.

    Raises VersionNotFound.
    """
    status = model.status(version)
    parts = [_header(model, status), _versions(model, status), _tensors(model, status)]
    if status.route is not None:
        parts.append(_calls(dialects(Caller(address, model.name, version, scheme), status.route)))
    return _page(f"{model.name} · Portico", f"{_path(model, version)}/openapi.json", "".join(parts))


def _path(model: Model, version: str = "") -> str:
    named = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(model.name, safe='')}{named}"


def _header(model: Model, status: Version) -> str:
    chips = [_chip(status.state.value, _TONES.get(status.state, "bad"))]
    chips += [_chip(f"version {status.version}")] if status.version else []
    chips += [_chip("default version")] if model.default and status.version == model.default else []
    chips += [_chip(model.server.display_name)] if model.server else []
    chips += [_chip(f"label {label}") for label, named in sorted(model.labels.items()) if named == status.version]
    reason = "" if status.state is State.READY else f'<p class="reason">{escape(status.reason or LOADING)}</p>'
    about = described(model, status)
    if status.route is not None and status.route.server is Server.TORCHSERVE:
        about = f"{about} {TAKES[status.route.policy.wire]}"
    return (
        f'<header><p class="over"><a href="/docs">Portico</a> / model</p><h1>{escape(model.name)}</h1>'
        f'<p class="chips">{"".join(chips)}</p>{reason}<p>{_prose(about)}</p></header>'
    )


def _versions(model: Model, shown: Version) -> str:
    if len(model.versions) < 2:
        return ""
    rows = []
    for version in reversed(list(model.versions.values())):
        link = _link(f"{_path(model, version.version)}/docs", version.version)
        mark = " (this page)" if version is shown else ""
        rows.append([link + mark, _state(version), escape(_labels(model, version)), escape(version.reason)])
    headings = ("Version", "State", "Labels", "Reason" if any(row[-1] for row in rows) else "")
    return f"<section><h2>Versions</h2>{_table(headings, rows)}</section>"


def _tensors(model: Model, status: Version) -> str:
    """One table for each signature that the model declares, or for what a handler's tensors are said to be."""
    signatures = client_signatures(status.route) or {DEFAULT_SIGNATURE: describe(model, status.version).signature}
    signatures = {name: signature for name, signature in signatures.items() if signature.inputs or signature.outputs}
    blocks = [_signature(name, signature, len(signatures) > 1) for name, signature in signatures.items()]
    if not blocks:
        return ""
    note = '<p class="note">-1 stands for any size.</p>' if _has_open_size(signatures.values()) else ""
    return f"<section><h2>Inputs and outputs</h2>{''.join(blocks)}{note}</section>"


def _has_open_size(signatures: Iterable[Signature]) -> bool:
    return any(-1 in (spec.shape or ()) for signature in signatures for spec in (*signature.inputs, *signature.outputs))


def _signature(name: str, signature: Signature, named: bool) -> str:
    rows = [_tensor_row("input", spec) for spec in signature.inputs]
    rows += [_tensor_row("output", spec) for spec in signature.outputs]
    default = ", the default" if name == DEFAULT_SIGNATURE else ""
    heading = f"<h3>Signature <code>{escape(name)}</code>{default}</h3>" if named else ""
    return f'{heading}<div class="tensors">{_table(("", "Name", "Datatype", "Shape"), rows)}</div>'


def _tensor_row(role: str, spec: TensorSpec) -> list[str]:
    name, datatype, shape = (
        f"<code>{escape(text)}</code>" for text in (spec.name, spec.datatype, shown_shape(spec.shape))
    )
    return [f'<span class="{role}">{role}</span>', name, datatype, shape]


def _calls(found: Sequence[Dialect]) -> str:
    """Tabs without a script: each is a radio button, whose section is shown while it is checked."""
    tabs, sections = [], []
    for index, dialect in enumerate(found):
        checked = "" if index else " checked"
        tabs.append(
            f'<input type="radio" name="dialect" id="dialect-{index}"{checked}>'
            f'<label for="dialect-{index}">{escape(dialect.title)}</label>'
        )
        note = f'<p class="note">{_prose(dialect.note)}</p>' if dialect.note else ""
        curl, python = _code("curl", dialect.curl), _code("Python, gRPC", dialect.python)
        sections.append(f"<div>{note}{curl}{python}</div>")
    return f'<section><h2>Call it</h2><div class="tabs">{"".join(tabs)}{"".join(sections)}</div></section>'


def _code(caption: str, text: str) -> str:
    if not text:
        return ""
    return (
        f'<figure><figcaption>{escape(caption)}<button type="button" hidden>Copy</button></figcaption>'
        f"<pre><code>{escape(text)}</code></pre></figure>"
    )


def _model_row(model: Model) -> list[str]:
    status = model.status()
    server = model.server.display_name if model.server else ""
    link = _link(f"{_path(model)}/docs", model.name)
    labels = ", ".join(f"{label} → {version}" for label, version in sorted(model.labels.items()))
    return [link, escape(status.version), escape(server), _state(status), escape(labels)]


def _labels(model: Model, version: Version) -> str:
    labels = sorted(label for label, named in model.labels.items() if named == version.version)
    return ", ".join([*(["default"] if model.default and version.version == model.default else []), *labels])


def _state(version: Version) -> str:
    return _chip(version.state.value, _TONES.get(version.state, "bad"))


def _prose(text: str) -> str:
    """A text of ours, `code` in it marked as that."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _chip(text: str, tone: str = "plain") -> str:
    return f'<span class="chip {tone}">{escape(text)}</span>'


def _link(path: str, text: str) -> str:
    return f'<a href="{escape(path)}">{escape(text)}</a>'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`rows` are HTML."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _page(title: str, document: str, content: str) -> str:
    """`content` is HTML."""
    filled = {"title": escape(title), "document": escape(document), "content": content}
    return _file("page.html").format(assets=ASSETS, style=_file("page.css"), **filled)


@cache
def _file(name: str) -> str:
    return (files(__package__) / name).read_text()
