//! The JSON in an archive, as `torch/_export/serde/schema.py` declares it, less what nobody needs.
//! Fields that are not known are passed over: newer releases add some.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What is looked at before anything else of `models/….json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) schema_version: Version,
    #[serde(default)]
    pub(crate) torch_version: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExportedProgram {
    pub(super) graph_module: GraphModule,
    #[serde(default)]
    pub(super) torch_version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: Graph,
    pub(super) signature: Signature,
}

#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Argument>,
    pub(super) outputs: Vec<Argument>,
    pub(super) nodes: Vec<Node>,
    pub(super) tensor_values: Pairs<TensorMeta>,
    #[serde(default)]
    pub(super) sym_int_values: Pairs<Number<i64>>,
    #[serde(default)]
    pub(super) sym_float_values: Pairs<Number<Real>>,
    #[serde(default)]
    pub(super) sym_bool_values: Pairs<Number<bool>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) target: String,
    pub(super) inputs: Vec<NamedArgument>,
    pub(super) outputs: Vec<Argument>,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    pub(super) stack_trace: Option<String>,
    pub(super) nn_module_stack: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedArgument {
    pub(super) name: String,
    pub(super) arg: Argument,
}

#[derive(Debug, Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<InputSpec>,
}

/// One of these is there, or one of a kind that is no tensor.
#[derive(Debug, Deserialize)]
pub(super) struct InputSpec {
    pub(super) user_input: Option<UserInput>,
    pub(super) parameter: Option<Parameter>,
    pub(super) buffer: Option<Buffer>,
    pub(super) tensor_constant: Option<TensorConstant>,
}

#[derive(Debug, Deserialize)]
pub(super) struct UserInput {
    pub(super) arg: Argument,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parameter {
    pub(super) arg: Named,
    pub(super) parameter_name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Buffer {
    pub(super) arg: Named,
    pub(super) buffer_name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct TensorConstant {
    pub(super) arg: Named,
    pub(super) tensor_constant_name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Number<i64>>,
    pub(super) strides: Vec<Number<i64>>,
    pub(super) storage_offset: Number<i64>,
    #[serde(default = "strided")]
    pub(super) layout: i64,
}

/// `Layout.Strided`.
pub(super) const STRIDED: i64 = 7;

fn strided() -> i64 {
    STRIDED
}

/// `data/weights/…_weights_config.json` and its like of constants.
#[derive(Debug, Deserialize)]
pub(super) struct PayloadConfig {
    pub(super) config: Pairs<PayloadMeta>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PayloadMeta {
    pub(super) path_name: String,
    pub(super) is_param: bool,
    #[serde(default)]
    pub(super) use_pickle: bool,
    pub(super) tensor_meta: Option<TensorMeta>,
}

/// A number, or a symbol for one (`SymInt`, `SymIntArgument` and those of floats and booleans).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Number<T> {
    /// What the graph has under this name.
    Named(String),
    /// The value, which a symbolic one had when it was exported.
    Value(T),
    /// Depends on the data, so that the export did not know it.
    Unknown,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Form<T> {
            as_name: Option<String>,
            #[serde(alias = "as_float", alias = "as_bool")]
            as_int: Option<T>,
            as_expr: Option<Expression<T>>,
        }
        #[derive(Deserialize)]
        struct Expression<T> {
            hint: Option<Hint<T>>,
        }
        #[derive(Deserialize)]
        struct Hint<T> {
            #[serde(alias = "as_float", alias = "as_bool")]
            as_int: T,
        }
        match Form::deserialize(deserializer)? {
            Form { as_name: Some(name), .. } => Ok(Number::Named(name)),
            Form { as_int: Some(value), .. } => Ok(Number::Value(value)),
            Form { as_expr: Some(Expression { hint: Some(hint) }), .. } => {
                Ok(Number::Value(hint.as_int))
            }
            Form { as_expr: Some(_), .. } => Ok(Number::Unknown),
            _ => Err(D::Error::custom("a number has neither a value nor a name")),
        }
    }
}

/// A float; JSON has those that are not finite as text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Real(pub(super) f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(Real(value)),
            Form::Text(text) => match text.as_str() {
                "Infinity" => Ok(Real(f64::INFINITY)),
                "-Infinity" => Ok(Real(f64::NEG_INFINITY)),
                "NaN" => Ok(Real(f64::NAN)),
                _ => Err(D::Error::custom(format!("{text:?} is no float"))),
            },
        }
    }
}

/// An argument or a result of an operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Argument {
    None,
    Tensor(String),
    Tensors(Vec<Option<String>>),
    Int(Number<i64>),
    Ints(Vec<Number<i64>>),
    Float(Number<Real>),
    Floats(Vec<Number<Real>>),
    Bool(Number<bool>),
    Bools(Vec<Number<bool>>),
    Text(String),
    ScalarType(i64),
    /// A device, a memory format or a layout.
    Placement,
    /// Of another type: the type's name.
    Other(String),
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Union;
        impl<'de> Visitor<'de> for Union {
            type Value = Argument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an argument, such as {\"as_int\": 1}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Argument, A::Error> {
                let kind: String =
                    map.next_key()?.ok_or_else(|| A::Error::custom("an argument is empty"))?;
                let argument = argument(&kind, &mut map)?;
                match map.next_key::<String>()? {
                    Some(second) => Err(A::Error::custom(format!(
                        "an argument is both {kind:?} and {second:?}"
                    ))),
                    None => Ok(argument),
                }
            }
        }
        deserializer.deserialize_map(Union)
    }
}

/// The argument that `map` has under the key `kind`.
fn argument<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<Argument, A::Error> {
    fn values<T>(values: Vec<T>) -> Vec<Number<T>> {
        values.into_iter().map(Number::Value).collect()
    }
    let named = |named: Named| named.name;
    Ok(match kind {
        "as_none" => {
            map.next_value::<IgnoredAny>()?;
            Argument::None
        }
        "as_tensor" => Argument::Tensor(named(map.next_value()?)),
        "as_tensors" => {
            let tensors: Vec<Named> = map.next_value()?;
            Argument::Tensors(tensors.into_iter().map(|tensor| Some(tensor.name)).collect())
        }
        "as_optional_tensor" => match map.next_value::<OptionalTensor>()?.as_tensor {
            Some(tensor) => Argument::Tensor(tensor.name),
            None => Argument::None,
        },
        "as_optional_tensors" => {
            let tensors: Vec<OptionalTensor> = map.next_value()?;
            Argument::Tensors(tensors.into_iter().map(|t| t.as_tensor.map(named)).collect())
        }
        "as_int" => Argument::Int(Number::Value(map.next_value()?)),
        "as_ints" => Argument::Ints(values(map.next_value()?)),
        "as_sym_int" => Argument::Int(map.next_value()?),
        "as_sym_ints" => Argument::Ints(map.next_value()?),
        "as_float" => Argument::Float(Number::Value(map.next_value()?)),
        "as_floats" => Argument::Floats(values(map.next_value()?)),
        "as_sym_float" => Argument::Float(map.next_value()?),
        "as_sym_floats" => Argument::Floats(map.next_value()?),
        "as_bool" => Argument::Bool(Number::Value(map.next_value()?)),
        "as_bools" => Argument::Bools(values(map.next_value()?)),
        "as_sym_bool" => Argument::Bool(map.next_value()?),
        "as_sym_bools" => Argument::Bools(map.next_value()?),
        "as_string" => Argument::Text(map.next_value()?),
        "as_scalar_type" => Argument::ScalarType(map.next_value()?),
        "as_device" | "as_memory_format" | "as_layout" => {
            map.next_value::<IgnoredAny>()?;
            Argument::Placement
        }
        other => {
            map.next_value::<IgnoredAny>()?;
            Argument::Other(other.strip_prefix("as_").unwrap_or(other).to_owned())
        }
    })
}

#[derive(Debug, Deserialize)]
struct OptionalTensor {
    as_tensor: Option<Named>,
}

/// A dictionary in its own order, whose names don't repeat.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pairs<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a dictionary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                let mut seen = HashSet::new();
                match pairs.iter().find(|(name, _)| !seen.insert(name)) {
                    Some((name, _)) => Err(A::Error::custom(format!("{name:?} is there twice"))),
                    None => Ok(Pairs(pairs)),
                }
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
