"""Values of expressions: names, attributes, operators and calls, each bound against what is recorded."""

import ast

from recorded import PYTHON_TYPES, Contract, Signature, Symbol
from source_values import HANDED_IN, Bound, Finding, Foreign, Obj, Own, OwnClass, Ref, Report, Value

OPERATORS = {ast.Add: "__add__", ast.Mult: "__mul__", ast.Sub: "__sub__", ast.MatMult: "__matmul__"}


class Expressions:
    """Values of expressions in one file."""

    def __init__(
        self, name: str, tree: ast.Module, contract: Contract, owned: dict[str, OwnClass], report: Report
    ) -> None:
        self._file, self._tree, self._contract, self._owned, self._report = name, tree, contract, owned, report
        self._module = name.removesuffix(".py").replace("/", ".")
        self._globals: dict[str, Value] = {}
        self._returns: dict[str, ast.expr] = {}
        self._class: OwnClass | None = None

    def _problem(self, node: ast.AST, text: str) -> None:
        self._report.problems.append(Finding(self._file, node.lineno, text))

    def _use(self, node: ast.AST, path: str) -> None:
        self._report.uses.append(Finding(self._file, node.lineno, path))

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
