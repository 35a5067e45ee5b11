//! Typed descriptors of methods, made by [`service!`](crate::service).
//!
//! A descriptor is what both ends share of a method: its wire name, the number that is hashed from
//! it, and the types of its arguments, its reply and its error. A server hands it to its builder
//! together with a handler, a client to a call together with arguments; wrong types do not compile.
//! Where the method is known only by its name, [`DynamicMethod`] takes and gives [`Value`]s.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, DecodeArgs, Encode, EncodeArgs};
use crate::error::CallError;
use crate::frame::MethodId;
use crate::value::Value;

mod service;

#[cfg(test)]
mod tests;

/// A method that one end serves and the other calls.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a method",
    label = "expected a method's descriptor, like `calc::add`",
    note = "`service!` makes descriptors; `DynamicMethod::new(\"calc.add\")` makes one of a name"
)]
pub trait Method: Clone + 'static {
    /// The arguments: a tuple, which may borrow from the request for as long as `'a`.
    type Args<'a>: EncodeArgs + DecodeArgs<'a>;
    /// The reply, which may borrow for as long as `'a`: in a handler from the request or the state,
    /// in a continuation from the frame it came in.
    type Reply<'a>: Encode + Decode<'a>;
    /// The reply where it must outlive its frame.
    type Owned: 'static;
    /// What the handler may fail with.
    type Error: Encode + for<'a> Decode<'a> + fmt::Display + 'static;

    /// Returns the wire name, `service.method`.
    fn name(&self) -> &str;

    /// Returns the number the method goes by on the wire.
    fn id(&self) -> MethodId {
        MethodId::of(self.name())
    }

    /// Returns whether a second run does no harm. Only such methods can be called `unprotected`.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Returns what a list of methods shows.
    fn info(&self) -> MethodInfo;

    /// Makes a reply that outlives its frame.
    fn into_owned(reply: Self::Reply<'_>) -> Self::Owned;
}

/// Something that calls a method and waits for its reply: the blocking client, and the handle that
/// other threads hold. The stubs that [`service!`](crate::service) makes stand on this.
pub trait Caller {
    /// Calls `method` and returns its reply.
    ///
    /// # Errors
    /// See [`CallError`]: its kinds tell whether the method ran.
    fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>>;
}

impl<C: Caller> Caller for &mut C {
    fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        C::call(self, method, args)
    }
}

/// What a list of methods shows of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// The wire name, `service.method`.
    pub name: Cow<'static, str>,
    /// The signature as it stands in `service!`, or nothing where it is not known.
    pub signature: Cow<'static, str>,
    /// The doc comment as it stands in `service!`, line by line.
    pub docs: Cow<'static, str>,
    /// Whether a second run does no harm.
    pub idempotent: bool,
}

impl MethodInfo {
    /// Returns the number the method goes by on the wire.
    pub const fn id(&self) -> MethodId {
        MethodId::of(match &self.name {
            Cow::Borrowed(name) => name,
            Cow::Owned(name) => name.as_str(),
        })
    }

    /// Returns the first line of the docs.
    pub fn summary(&self) -> &str {
        self.docs.trim_start().lines().next().unwrap_or_default().trim_end()
    }
}

/// Stops the compiler if two methods of a service have the same number.
///
/// # Panics
/// If two have. It runs at compile time.
#[doc(hidden)]
pub const fn assert_distinct(methods: &[MethodInfo]) {
    let mut i = 0;
    while i < methods.len() {
        let mut j = i + 1;
        while j < methods.len() {
            assert!(
                methods[i].id().0 != methods[j].id().0,
                "two methods of this service have the same wire name, or names with the same \
                 hash: give one of them another by #[name = \"service.other\"]"
            );
            j += 1;
        }
        i += 1;
    }
}

/// A method known by its name alone: any arguments, any reply, any error.
#[derive(Clone, Debug)]
pub struct DynamicMethod {
    name: Arc<str>,
    idempotent: bool,
}

impl DynamicMethod {
    /// Returns the descriptor of the method that goes by `name` on the wire.
    pub fn new(name: impl Into<Arc<str>>) -> DynamicMethod {
        DynamicMethod { name: name.into(), idempotent: false }
    }

    /// Declares that a second run does no harm.
    pub fn idempotent(self) -> DynamicMethod {
        DynamicMethod { idempotent: true, ..self }
    }
}

impl Method for DynamicMethod {
    type Args<'a> = Vec<Value>;
    type Reply<'a> = Value;
    type Owned = Value;
    type Error = Value;

    fn name(&self) -> &str {
        &self.name
    }

    fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    fn info(&self) -> MethodInfo {
        MethodInfo {
            name: Cow::Owned(String::from(&*self.name)),
            signature: Cow::Borrowed(""),
            docs: Cow::Borrowed(""),
            idempotent: self.idempotent,
        }
    }

    fn into_owned(reply: Value) -> Value {
        reply
    }
}
