"""Finds every use of tensorrt and tensorrt_llm in our source and binds it against the recorded facts.

A small abstract interpreter: it follows imports, assignments, attributes of ``self``, annotations and
return types, so that it knows of which recorded class an object is. What it cannot follow and what is not
recorded is a problem, never silently fine. Conventions that our code keeps for it: the module handed in
is called ``trt`` or ``_trt``; arguments of library calls are written out, not unpacked; parameters that
hold library objects are annotated.
"""

import ast
from pathlib import Path

from recorded import LIBRARIES, Contract
from source_expressions import Expressions
from source_values import HANDED_IN, Foreign, Obj, Own, OwnClass, Ref, Report, Value


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


class Scanner(Expressions):
    """Statements of one file."""

    def run(self) -> None:
        for node in ast.walk(self._tree):  # imports inside functions count as well
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node, self._globals)
        self._returns = {n.name: n.returns for n in self._tree.body if isinstance(n, ast.FunctionDef) and n.returns}
        self._block(self._tree.body, self._globals)

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
