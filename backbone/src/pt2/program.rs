//! A graph as `torch.export` writes it (`torch/_export/serde/schema.py`), less what nobody needs.

use std::collections::HashMap;

use tch::Kind;

/// An exported program's graph.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// The release of PyTorch that wrote it.
    pub torch_version: String,
    /// The graph's inputs, in order.
    pub inputs: Vec<Input>,
    /// The operators' calls, in the order in which they run.
    pub nodes: Vec<Node>,
    /// What the graph returns, in order.
    pub outputs: Vec<Value>,
    /// Type and shape, as they were when it was exported, of every tensor by name, but those whose
    /// shape depends on the data.
    pub tensors: HashMap<String, TensorMeta>,
}

/// An input of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// What the graph calls it.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where an input of the graph comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The parameter of this name.
    Parameter(String),
    /// The buffer of this name, in the state dict or not.
    Buffer(String),
    /// A tensor that the code holds, by its name in the archive.
    Constant(String),
    /// The caller: a tensor (an image), or a number that the export left open.
    User,
}

/// One call of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `torch.ops.aten.conv2d.default`, as the archive has it.
    pub target: String,
    /// Arguments by the names of the operator's schema. Those left out have the schema's default.
    pub arguments: Vec<(String, Value)>,
    /// The results, in order.
    pub outputs: Vec<Output>,
    /// The path of the innermost module that it was called in (`layer1.0.conv1`); empty for the
    /// network itself.
    pub module: String,
    /// The class of that module, such as `torch.nn.modules.conv.Conv2d`.
    pub class: String,
    /// The user's line that called it, `file.py:12`, and its text, where the archive tells.
    pub location: Option<(String, String)>,
}

/// One result of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A tensor of this name.
    Tensor(String),
    /// A list of tensors.
    Tensors(Vec<String>),
    /// A number of this name, whose value was known at export.
    Scalar(String),
    /// Nothing.
    None,
}

/// An argument. Symbolic numbers have the value that they had at export.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// The tensor of this name.
    Tensor(String),
    /// Tensors by name; `None` where a list of optional tensors has none.
    Tensors(Vec<Option<String>>),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Booleans.
    Bools(Vec<bool>),
    /// An element type; `None` where tch has none of that name.
    Kind(Option<Kind>),
    /// A device, a memory format or a layout: of no meaning here.
    Placement,
    /// Something that only operators take that have no meaning here, by what the archive calls it
    /// (`graph`, `custom_obj`), or a number that the export did not know.
    Other(String),
}

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorMeta {
    /// The element type, if tch has it.
    pub kind: Option<Kind>,
    /// The shape, with the values that symbolic sizes had at export.
    pub size: Vec<i64>,
}
