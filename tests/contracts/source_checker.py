"""Finds every use of tensorrt and tensorrt_llm in our source and binds it against the recorded facts.

A small abstract interpreter: it follows imports, assignments, attributes of ``self``, annotations and
return types, so that it knows of which recorded class an object is. What it cannot follow and what is not
recorded is a problem, never silently fine. Conventions that our code keeps for it: the module handed in
is called ``trt`` or ``_trt``; arguments of library calls are written out, not unpacked; parameters that
hold library objects are annotated.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from recorded import LIBRARIES, Contract, Signature, Symbol

HANDED_IN = {"trt": "tensorrt", "_trt": "tensorrt"}
OPERATORS = {ast.Add: "__add__", ast.Mult: "__mul__", ast.Sub: "__sub__", ast.MatMult: "__matmul__"}


@dataclass(frozen=True)
class Ref:
    """A module, class, function or enum member of a library, by its recorded path."""

    path: str


@dataclass(frozen=True)
class Bound:
    """A method of an object."""

    symbol: Symbol


@dataclass(frozen=True)
class Obj:
    """An object of a recorded class."""

    path: str


@dataclass(frozen=True)
class Own:
    """An object of one of our classes that inherits from a library's; ``Own`` of the class itself when called."""

    name: str
    is_class: bool = False


@dataclass(frozen=True)
class Foreign:
    """Something that a library gave us and whose class nobody recorded."""

    origin: str


Value = Ref | Bound | Obj | Own | Foreign | None


@dataclass
class OwnClass:
    """One of our classes with a library class among its bases."""

    base: str
    methods: set[str]
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class Report:
    """``uses``: recorded names that were met, with their places. ``problems``: what is not recorded."""

    uses: list[Finding] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)


def check_tree(root: Path, folders: list[str], contract: Contract) -> Report:
    """All Python files below the folders."""
    files = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    sources = {str(path.relative_to(root)): path.read_text("utf-8") for path in files}
    return check_sources(sources, contract)


def check_sources(sources: dict[str, str], contract: Contract) -> Report:
    """Sources by file name relative to the root."""
    report = Report()
    trees = {name: ast.parse(text) for name, text in sources.items()}
    owned: dict[str, OwnClass] = {}
    for final in (False, False, True):  # attributes and classes first; problems when all are known
        for name, tree in trees.items():
            Scanner(name, tree, contract, owned, report if final else Report()).run()
    report.uses = sorted(set(report.uses), key=str)
    report.problems = sorted(set(report.problems), key=str)
    return report


class Scanner:
    """One file."""

    def __init__(
        self, name: str, tree: ast.Module, contract: Contract, owned: dict[str, OwnClass], report: Report
    ) -> None:
        self._file, self._tree, self._contract, self._owned, self._report = name, tree, contract, owned, report
        self._module = name.removesuffix(".py").replace("/", ".")
        self._globals: dict[str, Value] = {}
        self._returns: dict[str, ast.expr] = {}
        self._class: OwnClass | None = None

    def run(self) -> None:
        for node in ast.walk(self._tree):  # imports inside functions count as well
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node, self._globals)
        self._returns = {n.name: n.returns for n in self._tree.body if isinstance(n, ast.FunctionDef) and n.returns}
        self._block(self._tree.body, self._globals)

    def _problem(self, node: ast.AST, text: str) -> None:
        self._report.problems.append(Finding(self._file, node.lineno, text))

    def _use(self, node: ast.AST, path: str) -> None:
        self._report.uses.append(Finding(self._file, node.lineno, path))

    # Names -------------------------------------------------------------------------------------

    def _import(self, node: ast.Import | ast.ImportFrom, env: dict[str, Value]) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in LIBRARIES:
                    path = alias.name if alias.asname else alias.name.split(".")[0]
                    env[alias.asname or path] = Ref(path)
                    self._known_module(node, alias.name)
            return
        module = node.module or ""
        for alias in node.names:
            own = f"{module}.{alias.name}"
            if not node.level and module.split(".")[0] in LIBRARIES:
                env[alias.asname or alias.name] = self._symbol(node, own)
            elif own in self._owned:
                env[alias.asname or alias.name] = Own(own, is_class=True)

    def _known_module(self, node: ast.AST, path: str) -> None:
        if not self._contract.is_module(path):
            self._problem(node, f"module {path} is not recorded")

    def _symbol(self, node: ast.AST, path: str) -> Value:
        contract = self._contract
        if contract.is_module(path):
            return Ref(path)
        symbol = contract.symbols.get(path)
        if symbol is None and not contract.is_type(path):
            self._problem(node, f"{path} is not recorded")
            return None
        self._use(node, path)
        if symbol is not None and symbol.type:
            return self._typed(path, symbol.type)
        return Ref(path)

    def _typed(self, origin: str, written: str) -> Value:
        """The value of a type as a signature writes it."""
        from recorded import PYTHON_TYPES

        name = written.removesuffix(" | None").strip()
        if name in PYTHON_TYPES:
            return None
        path = self._contract.resolve(name)
        return Obj(path) if path else Foreign(origin)

    def _annotated(self, node: ast.expr | None, env: dict[str, Value]) -> Value:
        """The value of a variable with this annotation."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._annotated(node.left, env) or self._annotated(node.right, env)
        if isinstance(node, ast.Name | ast.Attribute):
            value = self._eval(node, env)
            if isinstance(value, Ref) and self._contract.is_type(value.path):
                return Obj(value.path)
        return None

    # Statements --------------------------------------------------------------------------------

    def _block(self, body: list[ast.stmt], env: dict[str, Value]) -> None:
        for statement in body:
            self._statement(statement, env)

    def _statement(self, node: ast.stmt, env: dict[str, Value]) -> None:
        if isinstance(node, ast.ClassDef):
            self._define_class(node, env)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node, env)
        elif isinstance(node, ast.Assign):
            value = self._eval(node.value, env)
            for target in node.targets:
                self._assign(target, value, env, node.value)
        elif isinstance(node, ast.AnnAssign):
            value = self._eval(node.value, env) if node.value else None
            self._assign(node.target, self._annotated(node.annotation, env) or value, env)
        elif isinstance(node, ast.For):
            source = self._eval(node.iter, env)
            self._assign(node.target, source if isinstance(source, Foreign) else None, env)
            self._block(node.body + node.orelse, env)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            pass  # done for the whole file
        else:
            self._children(node, env)

    def _children(self, node: ast.AST, env: dict[str, Value]) -> None:
        """Everything else: expressions are evaluated, bodies walked, in the order in which they are written."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.withitem):
                value = self._eval(child.context_expr, env)
                if child.optional_vars is not None:
                    self._assign(child.optional_vars, value, env)
            elif isinstance(child, ast.stmt):
                self._statement(child, env)
            elif isinstance(child, ast.expr):
                self._eval(child, env)
            else:
                self._children(child, env)

    def _assign(self, target: ast.expr, value: Value, env: dict[str, Value], source: ast.expr | None = None) -> None:
        if isinstance(target, ast.Name):
            env[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            parts = source.elts if isinstance(source, ast.Tuple) and len(source.elts) == len(target.elts) else None
            for i, part in enumerate(target.elts):
                spread = self._eval(parts[i], env) if parts else value if isinstance(value, Foreign) else None
                self._assign(part, spread, env)
        elif isinstance(target, ast.Attribute):
            owner = self._eval(target.value, env)
            if isinstance(owner, Own) and target.attr not in ("_trt",):
                if value is not None or target.attr not in self._owned[owner.name].attributes:
                    self._owned[owner.name].attributes[target.attr] = value
            elif isinstance(owner, Obj | Ref):
                self._attribute(target, owner)
        else:
            self._eval(target, env)

    def _define_class(self, node: ast.ClassDef, env: dict[str, Value]) -> None:
        bases = [self._eval(base, env) for base in node.bases]
        library = next((base.path for base in bases if isinstance(base, Ref)), "")
        path = f"{self._module}.{node.name}"
        methods = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        own = self._owned.setdefault(path, OwnClass(library, methods))
        env[node.name] = Own(path, is_class=True)
        inner = dict(env) | {"self": Own(path), "__class__": Own(path)}
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                value = self._eval(statement.value, env)
                for target in statement.targets:
                    own.attributes[target.id] = value
            else:
                self._statement(statement, inner)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, env: dict[str, Value]) -> None:
        inner = dict(env)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            if argument.arg == "self":
                continue
            inner[argument.arg] = self._annotated(argument.annotation, env)
            if argument.arg in HANDED_IN:
                inner[argument.arg] = Ref(HANDED_IN[argument.arg])
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self._eval(default, env)
        self._block(node.body, inner)

    # Expressions -------------------------------------------------------------------------------

    def _eval(self, node: ast.expr, env: dict[str, Value]) -> Value:
        if isinstance(node, ast.Name):
            return env.get(node.id, Ref(HANDED_IN[node.id]) if node.id in HANDED_IN else None)
        if isinstance(node, ast.Attribute):
            if node.attr in HANDED_IN:
                return Ref(HANDED_IN[node.attr])
            return self._attribute(node, self._eval(node.value, env))
        if isinstance(node, ast.Call):
            return self._call(node, env)
        if isinstance(node, ast.BinOp):
            return self._operator(node, self._eval(node.left, env), self._eval(node.right, env))
        if isinstance(node, ast.Subscript):
            self._eval(node.slice, env)
            value = self._eval(node.value, env)
            return value if isinstance(value, Foreign) else None
        if isinstance(node, ast.NamedExpr):
            value = self._eval(node.value, env)
            env[node.target.id] = value
            return value
        if isinstance(node, ast.IfExp):
            self._eval(node.test, env)
            return self._eval(node.body, env) or self._eval(node.orelse, env)
        if isinstance(node, ast.Lambda):
            self._eval(node.body, dict(env))
            return None
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self._comprehension(node, dict(env))
        self._children(node, env)
        return None

    def _comprehension(self, node: ast.expr, env: dict[str, Value]) -> Value:
        for generator in node.generators:
            source = self._eval(generator.iter, env)
            self._assign(generator.target, source if isinstance(source, Foreign) else None, env)
            for condition in generator.ifs:
                self._eval(condition, env)
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                self._eval(getattr(node, part), env)
        return None

    def _attribute(self, node: ast.Attribute, owner: Value) -> Value:
        if isinstance(owner, Ref):
            return self._symbol(node, f"{owner.path}.{node.attr}") if not self._inherits(owner, node) else None
        if isinstance(owner, Obj):
            return self._member(node, owner.path, node.attr)
        if isinstance(owner, Own):
            own = self._owned[owner.name]
            if node.attr in own.attributes:
                return own.attributes[node.attr]
            if node.attr in own.methods or not own.base:
                return None
            return self._member(node, own.base, node.attr)
        if isinstance(owner, Foreign):
            self._problem(node, f".{node.attr} of what {owner.origin} gives, whose class is not recorded")
        return None

    def _inherits(self, owner: Ref, node: ast.Attribute) -> bool:
        """A member of a class that is recorded with one of its bases."""
        if not self._contract.is_type(owner.path) or f"{owner.path}.{node.attr}" in self._contract.symbols:
            return False
        symbol = self._contract.member(owner.path, node.attr)
        if symbol is not None:
            self._use(node, symbol.path)
        return symbol is not None

    def _member(self, node: ast.AST, path: str, name: str) -> Value:
        symbol = self._contract.member(path, name)
        if symbol is None:
            self._problem(node, f"{path}.{name} is not recorded")
            return None
        self._use(node, symbol.path)
        if symbol.signature is not None:
            return Bound(symbol)
        return self._typed(symbol.path, symbol.type) if symbol.type != "value" else None

    def _operator(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        name = OPERATORS.get(type(node.op))
        if not isinstance(left, Obj) or name is None:
            if isinstance(left, Foreign) or isinstance(right, Obj):
                self._problem(node, f"{name} of an object whose class is not recorded")
            return None
        bound = self._member(node, left.path, name)
        return self._returned(bound.symbol) if isinstance(bound, Bound) else None

    def _call(self, node: ast.Call, env: dict[str, Value]) -> Value:
        function = node.func
        if isinstance(function, ast.Name) and function.id == "super":
            own = self._owned.get(env["__class__"].name) if isinstance(env.get("__class__"), Own) else None
            return Obj(own.base) if own is not None and own.base else None
        if isinstance(function, ast.Name) and function.id in ("getattr", "setattr", "hasattr"):
            owner = self._eval(node.args[0], env)
            if isinstance(owner, Ref | Obj | Foreign):
                self._problem(node, f"{function.id} on a library object cannot be checked: write the name out")
        if isinstance(function, ast.Attribute) and function.attr == "__init__":
            owner = self._eval(function.value, env)
            callee: Value = Ref(owner.path) if isinstance(owner, Obj) else None
        else:
            callee = self._eval(function, env)
        for argument in [*node.args, *(k.value for k in node.keywords)]:
            self._eval(argument.value if isinstance(argument, ast.Starred) else argument, env)
        if isinstance(callee, Foreign):
            self._problem(node, f"call of what {callee.origin} gives, whose class is not recorded")
            return None
        if isinstance(callee, Own):
            return self._call_own(node, callee)
        if isinstance(function, ast.Name) and callee is None and function.id in self._returns:
            return self._annotated(self._returns[function.id], self._globals)
        return self._call_library(node, callee)

    def _call_own(self, node: ast.Call, callee: Own) -> Value:
        """Our class gives an object; an object of ours with a library base is called through ``forward``."""
        return Own(callee.name) if callee.is_class else None

    def _call_library(self, node: ast.Call, callee: Value) -> Value:
        if isinstance(callee, Bound):
            symbol: Symbol | None = callee.symbol
        elif isinstance(callee, Ref):
            symbol = self._contract.symbols.get(callee.path)
        elif isinstance(callee, Obj):  # modules of a network are called like functions
            bound = self._member(node, callee.path, "forward")
            symbol = bound.symbol if isinstance(bound, Bound) else None
        else:
            return None
        if symbol is None or symbol.signature is None:
            path = callee.path if isinstance(callee, Ref | Obj) else symbol.path if symbol else "?"
            self._problem(node, f"no signature of {path} is recorded")
            return None
        self._bind(node, symbol)
        if isinstance(callee, Ref) and self._contract.is_type(callee.path):
            return Obj(callee.path)
        return self._returned(symbol)

    def _bind(self, node: ast.Call, symbol: Symbol) -> None:
        signature: Signature = symbol.signature
        self._use(node, symbol.path)
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            self._problem(node, f"{symbol.path}: unpacked arguments cannot be checked: write them out")
            return
        for text in signature.problems(len(node.args), [k.arg for k in node.keywords]):
            self._problem(node, f"{symbol.path}: {text}")

    def _returned(self, symbol: Symbol) -> Value:
        written = symbol.signature.returns
        return self._typed(symbol.path, written) if written else Foreign(symbol.path)
