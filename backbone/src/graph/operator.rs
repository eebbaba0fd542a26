//! Any operator of libtorch by its name, through the dispatcher, with its schema's defaults and
//! its gradient.

// The bridge to C++ is unsafe by nature: what its functions take for granted stands beside each.
#![allow(unsafe_code)]

use cxx::UniquePtr;
use tch::Tensor;

use crate::kernels::{borrow, take};
use crate::{Error, Result};

#[cxx::bridge(namespace = "spark::graph")]
mod ffi {
    unsafe extern "C++" {
        include!("spark-backbone/src/graph/operator.hpp");

        /// `at::Tensor`.
        #[namespace = "at"]
        type Tensor = crate::kernels::CxxTensor;

        type OperatorHandle;
        type Call;

        fn find_operator(name: &str, overload: &str) -> Result<UniquePtr<OperatorHandle>>;
        fn argument_names(handle: &OperatorHandle) -> Vec<String>;
        fn new_call(handle: &OperatorHandle) -> UniquePtr<Call>;

        fn push_default(self: Pin<&mut Call>) -> Result<()>;
        fn push_none(self: Pin<&mut Call>);
        fn push_tensor(self: Pin<&mut Call>, tensor: &Tensor);
        fn push_int(self: Pin<&mut Call>, value: i64) -> Result<()>;
        fn push_float(self: Pin<&mut Call>, value: f64) -> Result<()>;
        fn push_bool(self: Pin<&mut Call>, value: bool);
        fn push_text(self: Pin<&mut Call>, value: &str);
        fn push_ints(self: Pin<&mut Call>, values: &[i64]) -> Result<()>;
        fn push_floats(self: Pin<&mut Call>, values: &[f64]);
        fn push_bools(self: Pin<&mut Call>, values: &[bool]);
        fn item(self: Pin<&mut Call>, tensor: &Tensor);
        fn push_items(self: Pin<&mut Call>) -> Result<()>;
        fn run(self: Pin<&mut Call>) -> Result<()>;
        fn results(self: &Call) -> usize;
        fn result(self: &Call, index: usize) -> Result<*mut Tensor>;
    }
}

/// An argument of a call.
#[derive(Debug)]
pub(super) enum Argument<'a> {
    /// The schema's default.
    Default,
    None,
    Tensor(Tensor),
    /// An undefined tensor is none.
    Tensors(Vec<Tensor>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Ints(&'a [i64]),
    Floats(&'a [f64]),
    Bools(&'a [bool]),
}

/// One of libtorch's operators.
pub(super) struct Operator {
    handle: UniquePtr<ffi::OperatorHandle>,
    /// `aten::add.Tensor`.
    name: String,
    arguments: Vec<String>,
}

// libtorch's operators are used from any thread; the handle is never changed.
unsafe impl Send for Operator {}
unsafe impl Sync for Operator {}

impl std::fmt::Debug for Operator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Operator {
    /// The operator of this name (`aten::add`) and overload (`Tensor`; empty: the default one).
    ///
    /// # Errors
    /// This libtorch has none.
    pub fn find(name: &str, overload: &str) -> Result<Self> {
        let handle = ffi::find_operator(name, overload).map_err(|_| {
            let wanted = format!("{name}.{overload}");
            Error::invalid("operator", wanted, "this release of libtorch has none of that name")
        })?;
        let arguments = ffi::argument_names(&handle);
        Ok(Self { handle, name: format!("{name}.{overload}"), arguments })
    }

    /// The names of the schema's arguments, in order.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The tensors that the operator makes of `arguments`, one for each of
    /// [`Operator::arguments`].
    ///
    /// # Errors
    /// libtorch refuses them.
    pub fn call(&self, arguments: &[Argument]) -> Result<Vec<Tensor>> {
        let failed = |error: cxx::Exception| {
            let text = error.what();
            let end = text.find("\nException raised from").unwrap_or(text.len());
            Error::Torch(format!("{}: {}", self.name, text[..end].trim()))
        };
        let mut call = ffi::new_call(&self.handle);
        for argument in arguments {
            let mut call = call.pin_mut();
            match argument {
                Argument::Default => call.push_default().map_err(failed)?,
                Argument::None => call.push_none(),
                Argument::Tensor(tensor) => call.push_tensor(borrow(tensor)),
                Argument::Tensors(tensors) => {
                    for tensor in tensors {
                        call.as_mut().item(borrow(tensor));
                    }
                    call.push_items().map_err(failed)?;
                }
                Argument::Int(value) => call.push_int(*value).map_err(failed)?,
                Argument::Float(value) => call.push_float(*value).map_err(failed)?,
                Argument::Bool(value) => call.push_bool(*value),
                Argument::Text(value) => call.push_text(value),
                Argument::Ints(values) => call.push_ints(values).map_err(failed)?,
                Argument::Floats(values) => call.push_floats(values),
                Argument::Bools(values) => call.push_bools(values),
            }
        }
        call.pin_mut().run().map_err(failed)?;
        Ok((0..call.results()).map(|index| take(call.result(index))).collect())
    }
}
