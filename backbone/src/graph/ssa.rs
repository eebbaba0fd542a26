//! The graph in single-assignment form: every value is made once, and in-place operators are their
//! functional kin.

use std::collections::HashMap;

use crate::pt2::{Input, Node, Output, Program, Source, Value};

/// A value's number in [`Ssa::values`].
pub(super) type ValueId = usize;

/// An argument of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Arg {
    Value(ValueId),
    Values(Vec<Option<ValueId>>),
    Literal(Value),
}

/// A call of an operator without side effects.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Library and name of the operator, such as `aten` and `add`.
    pub library: String,
    pub operator: String,
    pub overload: String,
    pub arguments: Vec<(String, Arg)>,
    pub outputs: Vec<ValueId>,
    /// The node's number in the program.
    pub node: usize,
    /// The name of a value that it reads although it was changed through another view of its
    /// memory.
    pub stale: Option<String>,
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub(super) struct ValueInfo {
    pub name: String,
    /// The shape at export.
    pub size: Vec<i64>,
    /// The call that makes it; none of the graph's inputs.
    pub producer: Option<usize>,
    /// Where an input of the graph comes from.
    pub source: Option<Source>,
    /// The value whose memory it may share.
    root: ValueId,
}

/// A graph in single-assignment form.
#[derive(Debug, Clone, Default)]
pub(super) struct Ssa {
    pub calls: Vec<Call>,
    pub values: Vec<ValueInfo>,
    /// Inputs that the caller gives.
    pub user_inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
}

/// Operators whose result may share the memory of their first argument.
const VIEWS: &[&str] = &[
    "alias",
    "chunk",
    "contiguous",
    "detach",
    "diagonal",
    "expand",
    "expand_as",
    "flatten",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "reshape_as",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "t",
    "to",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
    "view",
    "view_as",
];

impl Ssa {
    /// The single-assignment form of `program`.
    ///
    /// # Errors
    /// A sentence about a value that nothing makes.
    pub fn new(program: &Program) -> Result<Self, String> {
        let mut builder = Builder::default();
        for input in &program.inputs {
            builder.input(program, input);
        }
        for (number, node) in program.nodes.iter().enumerate() {
            builder.node(program, number, node)?;
        }
        let mut outputs = Vec::new();
        for output in &program.outputs {
            match builder.argument(output)? {
                Arg::Value(id) => outputs.push(id),
                Arg::Values(ids) => outputs.extend(ids.into_iter().flatten()),
                Arg::Literal(_) => {}
            }
        }
        Ok(Self { outputs, ..builder.ssa })
    }

    /// The values that a call reads.
    pub fn reads(call: &Call) -> impl Iterator<Item = ValueId> + '_ {
        call.arguments.iter().flat_map(|(_, argument)| match argument {
            Arg::Value(id) => vec![*id],
            Arg::Values(ids) => ids.iter().flatten().copied().collect(),
            Arg::Literal(_) => Vec::new(),
        })
    }
}

impl Call {
    /// The argument of this name, unless it is left out or `None`.
    pub fn argument(&self, name: &str) -> Option<&Arg> {
        let found = self.arguments.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        found.filter(|value| **value != Arg::Literal(Value::None))
    }

    /// The value given for this argument.
    pub fn value(&self, name: &str) -> Option<ValueId> {
        match self.argument(name)? {
            Arg::Value(id) => Some(*id),
            _ => None,
        }
    }

    /// The first argument, if it is a value.
    pub fn first(&self) -> Option<ValueId> {
        match self.arguments.first()? {
            (_, Arg::Value(id)) => Some(*id),
            _ => None,
        }
    }

    /// The integers given for this argument; one alone is a list of one.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.argument(name)? {
            Arg::Literal(Value::Ints(values)) => Some(values.clone()),
            Arg::Literal(Value::Int(value)) => Some(vec![*value]),
            _ => None,
        }
    }

    /// The integer given for this argument.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.argument(name)? {
            Arg::Literal(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The number given for this argument.
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.argument(name)? {
            Arg::Literal(Value::Float(value)) => Some(*value),
            Arg::Literal(Value::Int(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// The boolean given for this argument.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.argument(name)? {
            Arg::Literal(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// The text given for this argument.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.argument(name)? {
            Arg::Literal(Value::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// Both sides of an argument that may be given once for both, and starts as `default`.
    pub fn pair(&self, name: &str, default: i64) -> (i64, i64) {
        match self.ints(name).as_deref() {
            Some([both]) => (*both, *both),
            Some([height, width, ..]) => (*height, *width),
            _ => (default, default),
        }
    }
}

#[derive(Default)]
struct Builder {
    ssa: Ssa,
    /// The value that a name means at this point.
    current: HashMap<String, ValueId>,
    stale: Vec<bool>,
}

impl Builder {
    fn input(&mut self, program: &Program, input: &Input) {
        let id = self.value(program, &input.name, None);
        self.ssa.values[id].source = Some(input.source.clone());
        if input.source == Source::User {
            self.ssa.user_inputs.push(id);
        }
    }

    /// A new value, which `name` means from now on.
    fn value(&mut self, program: &Program, name: &str, producer: Option<usize>) -> ValueId {
        let id = self.ssa.values.len();
        let size = program.tensors.get(name).map_or_else(Vec::new, |meta| meta.size.clone());
        let name = name.to_owned();
        self.current.insert(name.clone(), id);
        self.ssa.values.push(ValueInfo { name, size, producer, source: None, root: id });
        self.stale.push(false);
        id
    }

    fn argument(&self, value: &Value) -> Result<Arg, String> {
        let find = |name: &String| {
            let found = self.current.get(name).copied();
            found.ok_or_else(|| format!("its graph reads {name:?} before it is made"))
        };
        Ok(match value {
            Value::Tensor(name) => Arg::Value(find(name)?),
            Value::Tensors(names) => {
                let find = |name: &Option<String>| name.as_ref().map(find).transpose();
                Arg::Values(names.iter().map(find).collect::<Result<_, _>>()?)
            }
            other => Arg::Literal(other.clone()),
        })
    }

    fn node(&mut self, program: &Program, number: usize, node: &Node) -> Result<(), String> {
        let makes_tensors =
            node.outputs.iter().any(|o| matches!(o, Output::Tensor(_) | Output::Tensors(_)));
        if !makes_tensors {
            // Assertions, and arithmetic with sizes, whose results are literals.
            return Ok(());
        }
        let (library, operator, overload) = split_target(&node.target);
        let in_place = operator.ends_with('_') && !operator.starts_with('_');
        let operator = if in_place { operator.trim_end_matches('_') } else { operator };
        let mut arguments = Vec::with_capacity(node.arguments.len());
        for (name, value) in &node.arguments {
            arguments.push((name.clone(), self.argument(value)?));
        }
        let mut call = Call {
            library: library.into(),
            operator: operator.into(),
            overload: overload.into(),
            arguments,
            outputs: Vec::new(),
            node: number,
            stale: None,
        };
        let stale = Ssa::reads(&call).find(|&id| self.stale[id]);
        call.stale = stale.map(|id| self.ssa.values[id].name.clone());
        let producer = Some(self.ssa.calls.len());
        for output in &node.outputs {
            match output {
                Output::Tensor(name) => call.outputs.push(self.value(program, name, producer)),
                Output::Tensors(names) => {
                    let ids = names.iter().map(|name| self.value(program, name, producer));
                    call.outputs.extend(ids.collect::<Vec<_>>());
                }
                Output::Scalar(_) | Output::None => {}
            }
        }
        if let Some(first) = call.first() {
            if in_place {
                self.write(first, &call.outputs);
            } else if VIEWS.contains(&operator) {
                let root = self.ssa.values[first].root;
                for &output in &call.outputs {
                    self.ssa.values[output].root = root;
                }
            }
        }
        self.ssa.calls.push(call);
        Ok(())
    }

    /// `outputs` were written into `target`: its name means the first of them from now on, and what
    /// else lies in its memory is not what the graph thinks any more.
    fn write(&mut self, target: ValueId, outputs: &[ValueId]) {
        let Some(&output) = outputs.first() else { return };
        let root = self.ssa.values[target].root;
        for id in 0..self.ssa.values.len() {
            if id != target && self.ssa.values[id].root == root {
                self.stale[id] = true;
            }
        }
        let name = self.ssa.values[target].name.clone();
        self.current.insert(name, output);
    }
}

/// `torch.ops.aten.add_.Tensor` as `aten`, `add_`, `Tensor`.
fn split_target(target: &str) -> (&str, &str, &str) {
    let path = target.strip_prefix("torch.ops.").unwrap_or(target);
    let mut parts = path.splitn(3, '.');
    let (library, operator) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let overload = parts.next().unwrap_or("");
    (library, operator, if overload == "default" { "" } else { overload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(target: &str, arguments: &[(&str, Value)], outputs: &[&str]) -> Node {
        Node {
            target: format!("torch.ops.aten.{target}"),
            arguments: arguments.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(),
            outputs: outputs.iter().map(|name| Output::Tensor((*name).to_owned())).collect(),
            module: String::new(),
            class: String::new(),
            location: None,
        }
    }

    fn tensor(name: &str) -> Value {
        Value::Tensor(name.to_owned())
    }

    fn program(nodes: Vec<Node>, output: &str) -> Program {
        Program {
            inputs: vec![Input { name: "x".into(), source: Source::User }],
            nodes,
            outputs: vec![tensor(output)],
            ..Program::default()
        }
    }

    #[test]
    fn a_name_means_the_last_value_that_was_written_to_it() {
        let nodes = vec![
            node("relu_.default", &[("self", tensor("x"))], &["relu_"]),
            node("neg.default", &[("self", tensor("x"))], &["neg"]),
        ];
        let ssa = Ssa::new(&program(nodes, "neg")).unwrap();
        assert_eq!(ssa.calls[0].operator, "relu");
        assert_eq!(ssa.calls[1].arguments[0].1, Arg::Value(ssa.calls[0].outputs[0]));
        assert_eq!(ssa.calls[1].stale, None);
    }

    #[test]
    fn a_write_through_a_view_makes_its_base_stale() {
        let nodes = vec![
            node("slice.Tensor", &[("self", tensor("x"))], &["part"]),
            node("add_.Tensor", &[("self", tensor("part"))], &["sum"]),
            node("neg.default", &[("self", tensor("x"))], &["neg"]),
        ];
        let ssa = Ssa::new(&program(nodes, "neg")).unwrap();
        assert_eq!(ssa.calls[2].stale.as_deref(), Some("x"));
    }

    #[test]
    fn a_value_that_nothing_makes_is_named() {
        let nodes = vec![node("neg.default", &[("self", tensor("y"))], &["neg"])];
        let problem = Ssa::new(&program(nodes, "neg")).unwrap_err();
        assert_eq!(problem, "its graph reads \"y\" before it is made");
    }
}
