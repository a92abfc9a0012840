"""The part of LLVM that kernels use, with types: llvmlite has none.

This is the only module that imports llvmlite. What leaves it has a type, so that mypy checks the kernels;
`pyproject.toml` forbids expressions of type `Any` in the modules that build them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NewType

from llvmlite import binding, ir

Raw = NewType("Raw", object)
"""An LLVM value whose type Python does not know; the classes in `ir_values` add one."""

Block = NewType("Block", object)
"""A basic block."""

_INT64, _INT32 = ir.IntType(64), ir.IntType(32)
_POINTER = ir.PointerType()


class Element:
    """What an array holds: the name that LLVM's intrinsics use for it, its bytes, and LLVM's type."""

    name: ClassVar[str]
    size: ClassVar[int]
    llvm_type: ClassVar[object]


class I64(Element):
    """A 64-bit integer."""

    name, size, llvm_type = "i64", 8, _INT64


class U8(Element):
    """A byte."""

    name, size, llvm_type = "i8", 1, ir.IntType(8)


class I32(Element):
    """The bits of a 32-bit number."""

    name, size, llvm_type = "i32", 4, _INT32


class BF16(Element):
    """A bfloat16, the upper half of a float32, as its bits."""

    name, size, llvm_type = "i16", 2, ir.IntType(16)


class F32(Element):
    """A 32-bit floating-point number."""

    name, size, llvm_type = "f32", 4, ir.FloatType()


class _BFloatType(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks: what the instructions of AVX512_BF16 take."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloatType)

    def __hash__(self) -> int:
        return hash(_BFloatType)


class BFloat(Element):
    """A bfloat16 as an operand of instructions."""

    name, size, llvm_type = "bf16", 2, _BFloatType()


Operation = Literal[
    "add", "sub", "mul", "udiv", "urem", "and_", "or_", "shl", "lshr", "fadd", "fsub", "fmul"
]  # fmt: skip
Comparison = Literal["icmp_signed", "icmp_unsigned", "fcmp_ordered", "fcmp_unordered"]


class Function:
    """A function under construction: `void name(ptr)`. Methods append instructions where it is positioned.

    Addresses are 64-bit integers. `lanes` is the number of elements of a vector, 1 is a scalar.
    `multiplies_bf16` says whether the function may use the instructions of AVX512_BF16.
    """

    def __init__(self, name: str, *, multiplies_bf16: bool = False) -> None:
        self.multiplies_bf16 = multiplies_bf16
        self._module = ir.Module(name)
        function = ir.Function(self._module, ir.FunctionType(ir.VoidType(), [_POINTER]), name)
        self._builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.argument = Raw(self._builder.ptrtoint(function.args[0], _INT64))

    def __str__(self) -> str:
        """Return the module in LLVM's intermediate representation."""
        return str(self._module)

    def integer(self, value: int) -> Raw:
        """Return a 64-bit constant."""
        return Raw(ir.Constant(_INT64, value))

    def constant(self, value: float, element: type[Element], lanes: int) -> Raw:
        """Return a vector constant with one number in all lanes."""
        return Raw(ir.Constant(_type(element, lanes), [value] * lanes))

    def set_name(self, value: Raw, name: str) -> None:
        """Give a value a name, for people who read the code."""
        _untyped(value).name = name

    def binary(self, operation: Operation, a: Raw, b: Raw) -> Raw:
        """Append an operation on two values of one type."""
        return Raw(getattr(self._builder, operation)(a, b))

    def compare(self, comparison: Comparison, operator: Literal["<", ">", "uno"], a: Raw, b: Raw) -> Raw:
        """Append a comparison; `fcmp_ordered` is false where a value is NaN, `uno` is true only there."""
        return Raw(getattr(self._builder, comparison)(operator, a, b))

    def select(self, condition: Raw, yes: Raw, no: Raw) -> Raw:
        """Append a choice between two values of one type, lane by lane if the condition is a vector."""
        return Raw(self._builder.select(condition, yes, no))

    def call(self, intrinsic: str, element: type[Element], lanes: int, arguments: Sequence[Raw]) -> Raw:
        """Append a call of one of LLVM's intrinsics that returns a vector."""
        return self._call(intrinsic, _type(element, lanes), arguments)

    def tile_instruction(self, name: str, tiles: Sequence[int], *memory: Raw) -> None:
        """Append an instruction of AMX on tiles (by number) and memory: an address, a stride in bytes."""
        numbers = [ir.Constant(U8.llvm_type, tile) for tile in tiles]
        address = [self._builder.inttoptr(each, _POINTER) for each in memory[:1]]
        self._call(f"llvm.x86.{name}", ir.VoidType(), [*numbers, *address, *memory[1:]])

    def float_to_int(self, value: Raw, element: type[Element], lanes: int) -> Raw:
        """Append the conversion of floats to unsigned integers."""
        return Raw(self._builder.fptoui(value, _type(element, lanes)))

    def bitcast(self, value: Raw, element: type[Element], lanes: int) -> Raw:
        """Reinterpret a vector's bits."""
        return Raw(self._builder.bitcast(value, _type(element, lanes)))

    def resize(self, value: Raw, element: type[Element], lanes: int) -> Raw:
        """Append the conversion of integers to wider ones, by zeros, or to narrower ones, the lower bits."""
        wider = _untyped(value).type.element.width < _type(element, lanes).element.width
        return Raw((self._builder.zext if wider else self._builder.trunc)(value, _type(element, lanes)))

    def low_bits_as_float(self, value: Raw) -> Raw:
        """Reinterpret the lower half of a 64-bit integer as a float32."""
        return Raw(self._builder.bitcast(self._builder.trunc(value, _INT32), F32.llvm_type))

    def splat(self, scalar: Raw, element: type[Element], lanes: int) -> Raw:
        """Append a vector with one value in all lanes."""
        undefined = ir.Constant(_type(element, lanes), ir.Undefined)
        first = self._builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
        return Raw(self._builder.shuffle_vector(first, undefined, zeros))

    def alloca(self, element: type[Element], count: Raw) -> Raw:
        """Append an array on the stack, aligned to a cache line, and return its address."""
        array = self._builder.alloca(element.llvm_type, size=count)
        array.align = 64
        return Raw(self._builder.ptrtoint(array, _INT64))

    def load(self, address: Raw, element: type[Element], lanes: int) -> Raw:
        """Append a load; the address need only be aligned to an element."""
        pointer = self._builder.inttoptr(address, _POINTER)
        return Raw(self._builder.load(pointer, align=element.size, typ=_type(element, lanes)))

    def store(self, value: Raw, address: Raw, element: type[Element]) -> None:
        """Append a store; the address need only be aligned to an element."""
        self._builder.store(value, self._builder.inttoptr(address, _POINTER), align=element.size)

    def prefetch(self, address: Raw, *, write: bool) -> None:
        """Append a prefetch of a cache line; the address need not be valid."""
        # Locality 3: into all levels of the cache. Cache type 1: data, not code.
        hints = [ir.Constant(_INT32, hint) for hint in (int(write), 3, 1)]
        pointer = self._builder.inttoptr(address, _POINTER)
        self._call("llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])

    def fetch_and_increment(self, address: Raw) -> Raw:
        """Append the atomic increment of a 64-bit integer, and return what it was."""
        pointer = self._builder.inttoptr(address, _POINTER)
        return Raw(self._builder.atomic_rmw("add", pointer, self.integer(1), "monotonic"))

    def new_block(self, name: str) -> Block:
        """Return a new basic block."""
        return Block(self._builder.append_basic_block(name))

    def current_block(self) -> Block:
        """Return the block to which instructions are appended."""
        return Block(self._builder.block)

    def move_to(self, block: Block) -> None:
        """Append what follows to a block."""
        self._builder.position_at_end(block)

    def branch(self, to: Block) -> None:
        """End the block with a jump."""
        self._builder.branch(to)

    def branch_if(self, condition: Raw, yes: Block, no: Block) -> None:
        """End the block with a conditional jump."""
        self._builder.cbranch(condition, yes, no)

    def return_void(self) -> None:
        """End the block by returning from the function."""
        self._builder.ret_void()

    def phi(self, initial: Raw, before: Block) -> Raw:
        """Append a phi, a variable at the top of a loop: `initial` on the jump from `before`."""
        phi: Any = self._builder.phi(_untyped(initial).type)
        phi.add_incoming(initial, before)
        return Raw(phi)

    def add_incoming(self, phi: Raw, value: Raw, block: Block) -> None:
        """Set the value of a phi for the jump from a block."""
        _untyped(phi).add_incoming(value, block)

    def _call(self, name: str, result: Any, arguments: Sequence[Any]) -> Raw:
        declared = self._module.globals.get(name)
        if declared is None:
            signature = ir.FunctionType(result, [argument.type for argument in arguments])
            declared = ir.Function(self._module, signature, name)
        return Raw(self._builder.call(declared, arguments))


def _type(element: type[Element], lanes: int) -> Any:
    return element.llvm_type if lanes == 1 else ir.VectorType(element.llvm_type, lanes)


def _untyped(value: object) -> Any:
    return value


class MachineCode:
    """A compiled function: its `address` is valid for as long as this object lives."""

    def __init__(self, engine: Any, function: str) -> None:
        self._engine = engine
        self.address = int(engine.get_function_address(function))


_compiling = threading.Lock()


def compile_function(code: str, name: str, processor: str, features: str) -> MachineCode:
    """Compile a module in LLVM's intermediate representation into memory, for one of its functions."""
    with _compiling:
        module, machine = _parse(code, processor, features)
        engine = binding.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        return MachineCode(engine, name)


def assembly(code: str, processor: str, features: str) -> str:
    """Return the assembly of a module in LLVM's intermediate representation."""
    with _compiling:
        module, machine = _parse(code, processor, features)
        return str(machine.emit_assembly(module))


def _parse(code: str, processor: str, features: str) -> tuple[Any, Any]:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(code)
    module.verify()
    target = binding.Target.from_default_triple()
    return module, target.create_target_machine(cpu=processor, features=features, opt=2)


def host_processor() -> str:
    """Return LLVM's name of this machine's processor."""
    return str(binding.get_host_cpu_name())


def host_features() -> Mapping[str, bool]:
    """Return which instruction sets this machine's processor has, by LLVM's names."""
    features: dict[str, bool] = binding.get_host_cpu_features()
    return features


def host_feature_flags() -> str:
    """Return the same as LLVM takes them: `+avx2,-avx512f,...`."""
    return str(binding.get_host_cpu_features().flatten())


def version() -> str:
    """Return LLVM's version."""
    return ".".join(map(str, binding.llvm_version_info))
