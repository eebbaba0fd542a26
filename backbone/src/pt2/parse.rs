//! From the JSON of a graph to a [`Program`]: symbols become the numbers that they had, and every
//! tensor is defined before it is used.

use std::collections::{HashMap, HashSet};

use tch::Kind;

use super::layout::scalar_type;
use super::program::{Input, Node, Output, Program, Source, TensorMeta, Value};
use super::trace::{innermost_module, user_line};
use super::wire::{self, Argument, Header, Number, Pairs, Real};
use crate::weights::dtype::element_count;

type Outcome<T> = std::result::Result<T, String>;

/// The schema's version that is known. Its minor versions add to it only.
const MAJOR: i64 = 8;

/// Release and schema of a program.
///
/// # Errors
/// A sentence: it is no program, or of a schema that is not known.
pub(super) fn header(json: &[u8]) -> Outcome<Header> {
    let header: Header =
        serde_json::from_slice(json).map_err(|e| format!("it is no exported program: {e}"))?;
    let wire::Version { major, minor } = header.schema_version;
    if major != MAJOR {
        return Err(format!(
            "PyTorch {} wrote it with schema {major}.{minor}, and only {MAJOR} is known here; \
             export the network again with PyTorch 2.9 to 2.15",
            header.torch_version
        ));
    }
    Ok(header)
}

/// The graph of a program.
///
/// # Errors
/// A sentence: what is wrong with it.
pub(super) fn program(json: &[u8]) -> Outcome<Program> {
    header(json)?;
    let wire::ExportedProgram { graph_module, torch_version } =
        serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let wire::GraphModule { graph, signature } = graph_module;
    let symbols = Symbols {
        ints: graph.sym_int_values.0.into_iter().collect(),
        floats: graph.sym_float_values.0.into_iter().collect(),
        bools: graph.sym_bool_values.0.into_iter().collect(),
    };
    let inputs = inputs(graph.inputs, signature)?;
    let mut defined: HashSet<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let mut nodes = Vec::new();
    for node in graph.nodes {
        let node = symbols.node(node)?;
        let what = || format!("its node {:?}", node.target);
        for (_, value) in &node.arguments {
            all_defined(value, &defined).map_err(|name| undefined(&what(), name))?;
        }
        // Of a list of optional tensors, those that are none have no name.
        let names = node.outputs.iter().flat_map(names_of).filter(|name| !name.is_empty());
        for name in names {
            if !defined.insert(name.to_owned()) {
                return Err(format!("{} defines {name:?} a second time", what()));
            }
        }
        nodes.push(node);
    }
    let outputs: Vec<Value> =
        graph.outputs.into_iter().map(|output| symbols.value(output)).collect::<Outcome<_>>()?;
    for output in &outputs {
        all_defined(output, &defined).map_err(|name| undefined("its result", name))?;
    }
    let tensors = tensors(graph.tensor_values, &symbols)?;
    Ok(Program { torch_version, inputs, nodes, outputs, tensors })
}

fn undefined(what: &str, name: &str) -> String {
    format!("{what} uses {name:?}, which nothing before it defines")
}

/// The inputs that have names, and where each is from. What is not a tensor was fixed when the
/// network was exported.
fn inputs(arguments: Vec<Argument>, signature: wire::Signature) -> Outcome<Vec<Input>> {
    let mut sources: HashMap<String, Source> = HashMap::new();
    for spec in signature.input_specs {
        let (name, source) = if let Some(spec) = spec.parameter {
            (spec.arg.name, Source::Parameter(spec.parameter_name))
        } else if let Some(spec) = spec.buffer {
            (spec.arg.name, Source::Buffer(spec.buffer_name))
        } else if let Some(spec) = spec.tensor_constant {
            (spec.arg.name, Source::Constant(spec.tensor_constant_name))
        } else if let Some(name) = spec.user_input.and_then(|spec| input_name(spec.arg)) {
            (name, Source::User)
        } else {
            continue;
        };
        if let Some(other) = sources.insert(name.clone(), source) {
            return Err(format!("its input {name:?} is specified twice, once as {other:?}"));
        }
    }
    let mut inputs = Vec::new();
    for name in arguments.into_iter().filter_map(input_name) {
        let source = sources.remove(&name);
        let source =
            source.ok_or_else(|| format!("where its input {name:?} is from is not said"))?;
        inputs.push(Input { name, source });
    }
    match sources.keys().next() {
        Some(name) => Err(format!("{name:?} is specified as an input, but the graph has none")),
        None => Ok(inputs),
    }
}

fn input_name(argument: Argument) -> Option<String> {
    match argument {
        Argument::Tensor(name)
        | Argument::Int(Number::Named(name))
        | Argument::Float(Number::Named(name))
        | Argument::Bool(Number::Named(name)) => Some(name),
        _ => None,
    }
}

/// Type and shape of every tensor whose shape the export knew.
fn tensors(
    values: Pairs<wire::TensorMeta>,
    symbols: &Symbols,
) -> Outcome<HashMap<String, TensorMeta>> {
    let mut tensors = HashMap::with_capacity(values.0.len());
    for (name, meta) in values.0 {
        let Some(size) = symbols.all(&symbols.ints, meta.sizes)? else { continue };
        if element_count(&size).is_none_or(|count| i64::try_from(count).is_err()) {
            return Err(format!("its tensor {name:?} has shape {size:?}, which can't be"));
        }
        tensors.insert(name, TensorMeta { kind: kind_of(meta.dtype), size });
    }
    Ok(tensors)
}

fn kind_of(scalar: i64) -> Option<Kind> {
    scalar_type(scalar).and_then(|(_, kind)| kind)
}

/// The tensors that a result defines.
fn names_of(output: &Output) -> &[String] {
    match output {
        Output::Tensor(name) | Output::Scalar(name) => std::slice::from_ref(name),
        Output::Tensors(names) => names,
        Output::None => &[],
    }
}

/// The first name that is not defined, if there is one.
fn all_defined<'v>(value: &'v Value, defined: &HashSet<String>) -> Result<(), &'v str> {
    let names = match value {
        Value::Tensor(name) => std::slice::from_ref(name).iter().map(Some).collect(),
        Value::Tensors(names) => names.iter().map(Option::as_ref).collect(),
        _ => Vec::new(),
    };
    let mut names = names.into_iter().flatten();
    names.find(|name| !defined.contains(*name)).map_or(Ok(()), |name| Err(name))
}

/// What the symbols of a graph stood for.
struct Symbols {
    ints: HashMap<String, Number<i64>>,
    floats: HashMap<String, Number<Real>>,
    bools: HashMap<String, Number<bool>>,
}

impl Symbols {
    fn node(&self, node: wire::Node) -> Outcome<Node> {
        let arguments =
            node.inputs.into_iter().map(|input| Ok((input.name, self.value(input.arg)?)));
        let arguments = arguments
            .collect::<Outcome<_>>()
            .map_err(|problem| format!("its node {:?}: {problem}", node.target))?;
        let stack = node.metadata.nn_module_stack.unwrap_or_default();
        let (module, class) = innermost_module(&stack);
        Ok(Node {
            arguments,
            outputs: node.outputs.into_iter().map(output).collect(),
            module,
            class,
            location: node.metadata.stack_trace.as_deref().and_then(user_line),
            target: node.target,
        })
    }

    fn value(&self, argument: Argument) -> Outcome<Value> {
        let one = |value: Option<Value>| value.unwrap_or_else(unknown);
        Ok(match argument {
            Argument::None => Value::None,
            Argument::Tensor(name) => Value::Tensor(name),
            Argument::Tensors(names) => Value::Tensors(names),
            Argument::Int(number) => one(self.one(&self.ints, number)?.map(Value::Int)),
            Argument::Bool(number) => one(self.one(&self.bools, number)?.map(Value::Bool)),
            Argument::Float(number) => {
                one(self.one(&self.floats, number)?.map(|Real(value)| Value::Float(value)))
            }
            Argument::Ints(numbers) => one(self.all(&self.ints, numbers)?.map(Value::Ints)),
            Argument::Bools(numbers) => one(self.all(&self.bools, numbers)?.map(Value::Bools)),
            Argument::Floats(numbers) => {
                let floats = self.all(&self.floats, numbers)?;
                one(floats.map(|all| Value::Floats(all.into_iter().map(|Real(f)| f).collect())))
            }
            Argument::Text(text) => Value::Text(text),
            Argument::ScalarType(number) => Value::Kind(kind_of(number)),
            Argument::Placement => Value::Placement,
            Argument::Other(what) => Value::Other(what),
        })
    }

    /// The value of a number; none if the export did not know it.
    fn one<T: Copy>(
        &self,
        table: &HashMap<String, Number<T>>,
        number: Number<T>,
    ) -> Outcome<Option<T>> {
        let number = match &number {
            Number::Named(name) => {
                table.get(name).ok_or_else(|| format!("the number {name:?} is not defined"))?
            }
            other => other,
        };
        Ok(match number {
            Number::Value(value) => Some(*value),
            _ => None,
        })
    }

    /// The values of numbers; none if the export did not know one of them.
    fn all<T: Copy>(
        &self,
        table: &HashMap<String, Number<T>>,
        numbers: Vec<Number<T>>,
    ) -> Outcome<Option<Vec<T>>> {
        numbers.into_iter().map(|number| self.one(table, number)).collect()
    }
}

/// A number that depends on the data.
fn unknown() -> Value {
    Value::Other("number that depends on the data".into())
}

fn output(argument: Argument) -> Output {
    match argument {
        Argument::Tensor(name) => Output::Tensor(name),
        Argument::Tensors(names) => {
            Output::Tensors(names.into_iter().map(Option::unwrap_or_default).collect())
        }
        Argument::Int(Number::Named(name))
        | Argument::Float(Number::Named(name))
        | Argument::Bool(Number::Named(name)) => Output::Scalar(name),
        _ => Output::None,
    }
}
