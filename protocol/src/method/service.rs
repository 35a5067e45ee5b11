//! The macro that makes descriptors and stubs of signatures.
//!
//! It goes over the methods twice, each time one by one: for the descriptors, and in a module of its
//! own for the stub, whose parameters could not be named like a method beside the descriptors. So
//! the depth of its recursion is the number of methods, and the attributes and arguments of one.

/// Declares services: modules of methods, each with a typed descriptor for both ends.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// pub struct Work { a: i32, b: i32 }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct DividedByZero;
///
/// impl std::fmt::Display for DividedByZero {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("divided by zero")
///     }
/// }
///
/// onceloop_protocol::service! {
///     /// Sums, over the network.
///     pub mod calc {
///         /// Answers.
///         fn ping();
///         /// Returns the sum of two numbers.
///         #[idempotent]
///         fn add(a: i32, b: i32) -> i32;
///         fn divide(work: Work) -> Result<i32, DividedByZero>;
///         #[name = "calc.echo2"]
///         fn echo(text: &str) -> &str;
///     }
/// }
///
/// use onceloop_protocol::method::{Caller, Method};
///
/// fn local_or_not(connection: impl Caller) -> Result<i32, Box<dyn std::error::Error>> {
///     let mut calc = calc::Stub(connection);
///     Ok(calc.add(3, 4)?)
/// }
///
/// fn main() {
///     assert_eq!(calc::add.name(), "calc.add");
///     assert_eq!(calc::echo.name(), "calc.echo2");
/// }
/// ```
///
/// A service becomes a module of its name with, for each method, a unit struct of the method's name
/// that implements [`Method`](crate::method::Method); with `METHODS`, their descriptions; and with
/// `Stub`, whose functions call through a [`Caller`](crate::method::Caller) and read like local ones.
/// What stands in the module around the macro is in scope inside; so it is for modules, not for the
/// body of a function.
///
/// * The wire name is `service.method`; `#[name = "…"]` sets another. Renaming a method in the
///   source without it is a change of the wire.
/// * `#[idempotent]` declares that a second run does no harm.
/// * Arguments and replies are types with serde's traits, or [`Value`](crate::value::Value). `&T`
///   borrows from the frame; `&[u8]` travels as a bin and is a [`Bin`](crate::codec::Bin) in a
///   handler; `Raw` is any value as its bytes. An argument's type of your own may borrow, too: write
///   its lifetime as `'a`.
/// * `-> Result<T, E>` declares the error; without it a handler fails with an
///   [`ApplicationError`](crate::error::ApplicationError). Without `->` it replies nothing.
/// * Other attributes go to the descriptor and to the stub's function.
///
/// A service of more than about a hundred methods needs `#![recursion_limit = "256"]`.
#[macro_export]
macro_rules! service {
    () => {};
    ($(#[$meta:meta])* pub mod $service:ident { $($methods:tt)* } $($rest:tt)*) => {
        $crate::__service! { [$(#[$meta])*] (pub) (pub) (pub) $service { $($methods)* } }
        $crate::service! { $($rest)* }
    };
    ($(#[$meta:meta])* pub(crate) mod $service:ident { $($methods:tt)* } $($rest:tt)*) => {
        $crate::__service! { [$(#[$meta])*] (pub(crate)) (pub(crate)) (pub(crate))
            $service { $($methods)* } }
        $crate::service! { $($rest)* }
    };
    ($(#[$meta:meta])* pub(super) mod $service:ident { $($methods:tt)* } $($rest:tt)*) => {
        $crate::__service! { [$(#[$meta])*] (pub(super)) (pub(in super::super))
            (pub(in super::super::super)) $service { $($methods)* } }
        $crate::service! { $($rest)* }
    };
    ($(#[$meta:meta])* mod $service:ident { $($methods:tt)* } $($rest:tt)*) => {
        $crate::__service! { [$(#[$meta])*] () (pub(super)) (pub(in super::super))
            $service { $($methods)* } }
        $crate::service! { $($rest)* }
    };
}

/// Writes one service's module. Its visibility comes three times, as it is written outside, in the
/// module and in the module for the stub: what is inside is as visible as the module and no more, or
/// a program could not use its private types in its private services.
#[doc(hidden)]
#[macro_export]
macro_rules! __service {
    ([$($meta:tt)*] ($($vis:tt)*) ($($inside:tt)*) ($($deep:tt)*)
     $service:ident { $($methods:tt)* }) => {
        $($meta)*
        #[allow(unreachable_pub, reason = "whether it is reached is for its surroundings to say")]
        $($vis)* mod $service {
            #[allow(unused_imports, reason = "not every service uses a type of its surroundings")]
            use super::*;

            $crate::__methods! { (descriptor ($($inside)*)) $service [] $($methods)* }

            mod __stub {
                #[allow(unused_imports, reason = "as above")]
                use super::super::*;

                /// The service's methods as functions that call through `C` and wait.
                #[allow(dead_code, reason = "not every program calls this service")]
                #[derive(Clone, Copy, Debug)]
                $($deep)* struct Stub<C>($($deep)* C);

                $crate::__methods! { (stub ($($deep)*)) $service [] $($methods)* }
            }
            #[allow(unused_imports, reason = "not every program calls this service")]
            $($inside)* use __stub::Stub;
        }
    };
}

/// Takes one method off the front, by the shape of its reply.
#[doc(hidden)]
#[macro_export]
macro_rules! __methods {
    ((stub $vis:tt) $service:ident [$($done:ident)*]) => {};
    ((descriptor ($($vis:tt)*)) $service:ident [$($done:ident)*]) => {
        /// What a list of methods shows of this service, in the order of its declaration.
        #[allow(dead_code, deprecated, reason = "a deprecated method is listed, too")]
        $($vis)* const METHODS: &[$crate::method::MethodInfo] = &[$($done::INFO),*];
        const _: () = $crate::method::assert_distinct(METHODS);
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (own ()) ($crate::error::ApplicationError)
            ("") [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> Result<&[u8], $error:ty>; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (bin) ($error)
            (" -> Result<&[u8], ", stringify!($error), ">") [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> Result<Raw, $error:ty>; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (raw) ($error)
            (" -> Result<Raw, ", stringify!($error), ">") [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> Result<& $ok:ty, $error:ty>; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (borrowed $ok) ($error)
            (" -> Result<&", stringify!($ok), ", ", stringify!($error), ">")
            [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> Result<$ok:ty, $error:ty>; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (own $ok) ($error)
            (" -> Result<", stringify!($ok), ", ", stringify!($error), ">")
            [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> &[u8]; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (bin) ($crate::error::ApplicationError)
            (" -> &[u8]") [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> Raw; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (raw) ($crate::error::ApplicationError)
            (" -> Raw") [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> & $ok:ty; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (borrowed $ok)
            ($crate::error::ApplicationError)
            (" -> &", stringify!($ok)) [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident [$($done:ident)*]
     $(#[$($attr:tt)*])* fn $f:ident $args:tt -> $ok:ty; $($rest:tt)*) => {
        $crate::__attributes! { $mode $service $f $args (own $ok) ($crate::error::ApplicationError)
            (" -> ", stringify!($ok)) [] false [] [] [$([$($attr)*])*] }
        $crate::__methods! { $mode $service [$($done)* $f] $($rest)* }
    };
    ($mode:tt $service:ident $done:tt $($unexpected:tt)+) => {
        ::core::compile_error!(concat!(
            "a method looks like `fn add(a: i32, b: i32) -> i32;`, this does not: ",
            stringify!($($unexpected)+)
        ));
    };
}

/// Sorts a method's attributes: `[wire name] idempotent [docs] [others] [not yet seen]`.
#[doc(hidden)]
#[macro_export]
macro_rules! __attributes {
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt $text:tt
     $name:tt $idempotent:tt $docs:tt $others:tt [[idempotent] $($left:tt)*]) => {
        $crate::__attributes! { $mode $service $f $args $reply $error $text
            $name true $docs $others [$($left)*] }
    };
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt $text:tt
     $name:tt $idempotent:tt $docs:tt $others:tt [[name = $wire:literal] $($left:tt)*]) => {
        $crate::__attributes! { $mode $service $f $args $reply $error $text
            [$wire] $idempotent $docs $others [$($left)*] }
    };
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt $text:tt
     $name:tt $idempotent:tt [$($docs:tt)*] $others:tt [[doc = $doc:expr] $($left:tt)*]) => {
        $crate::__attributes! { $mode $service $f $args $reply $error $text
            $name $idempotent [$($docs)* [$doc]] $others [$($left)*] }
    };
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt $text:tt
     $name:tt $idempotent:tt $docs:tt [$($others:tt)*] [$other:tt $($left:tt)*]) => {
        $crate::__attributes! { $mode $service $f $args $reply $error $text
            $name $idempotent $docs [$($others)* $other] [$($left)*] }
    };
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt ($($text:tt)*)
     [] $idempotent:tt $docs:tt $others:tt []) => {
        $crate::__arguments! {
            ($mode $f $reply $error (concat!(stringify!($f), stringify!($args), $($text)*))
                (concat!(stringify!($service), ".", stringify!($f))) $idempotent $docs $others)
            [] $args
        }
    };
    ($mode:tt $service:ident $f:ident $args:tt $reply:tt $error:tt ($($text:tt)*)
     [$wire:literal] $idempotent:tt $docs:tt $others:tt []) => {
        $crate::__arguments! {
            ($mode $f $reply $error (concat!(stringify!($f), stringify!($args), $($text)*))
                ($wire) $idempotent $docs $others)
            [] $args
        }
    };
}

/// Takes one argument off the front: its name, its type in `Args<'a>`, its type as a parameter of
/// the stub, and how the one is made of the other.
#[doc(hidden)]
#[macro_export]
macro_rules! __arguments {
    (((descriptor $vis:tt) $($head:tt)*) $done:tt ()) => {
        $crate::__descriptor! { $vis $($head)* $done }
    };
    (((stub $vis:tt) $($head:tt)*) $done:tt ()) => { $crate::__stub! { $vis $($head)* $done } };
    ($head:tt [$($done:tt)*] ($name:ident: &[u8] $(, $($rest:tt)*)?)) => {
        $crate::__arguments! { $head
            [$($done)* ($name ($crate::codec::Bin<'a>) (&'a [u8]) ($crate::codec::Bin($name)))]
            ($($($rest)*)?) }
    };
    ($head:tt [$($done:tt)*] ($name:ident: Raw $(, $($rest:tt)*)?)) => {
        $crate::__arguments! { $head
            [$($done)* ($name ($crate::codec::Raw<'a>) ($crate::codec::Raw<'a>) ($name))]
            ($($($rest)*)?) }
    };
    ($head:tt [$($done:tt)*] ($name:ident: &$lifetime:lifetime $type:ty $(, $($rest:tt)*)?)) => {
        $crate::__arguments! { $head
            [$($done)* ($name (&$lifetime $type) (&$lifetime $type) ($name))]
            ($($($rest)*)?) }
    };
    ($head:tt [$($done:tt)*] ($name:ident: & $type:ty $(, $($rest:tt)*)?)) => {
        $crate::__arguments! { $head
            [$($done)* ($name (&'a $type) (&'a $type) ($name))]
            ($($($rest)*)?) }
    };
    ($head:tt [$($done:tt)*] ($name:ident: $type:ty $(, $($rest:tt)*)?)) => {
        $crate::__arguments! { $head [$($done)* ($name ($type) ($type) ($name))] ($($($rest)*)?) }
    };
    (((descriptor $vis:tt) $($head:tt)*) $done:tt ($($unexpected:tt)+)) => {
        ::core::compile_error!(concat!(
            "an argument looks like `name: Type`, this does not: ",
            stringify!($($unexpected)+)
        ));
    };
    // Told once, by the descriptor.
    (((stub $vis:tt) $($head:tt)*) $done:tt ($($unexpected:tt)+)) => {};
}

/// Writes a method's descriptor.
#[doc(hidden)]
#[macro_export]
macro_rules! __descriptor {
    (($($vis:tt)*) $f:ident $reply:tt ($error:ty) ($signature:expr) ($wire:expr) $idempotent:tt
     [$([$doc:expr])*] [$($other:tt)*]
     [$(($name:ident ($arg:ty) $parameter:tt $value:tt))*]) => {
        $(#[doc = $doc])*
        $(#$other)*
        #[allow(
            dead_code,
            non_camel_case_types,
            reason = "a descriptor stands where a function would; not every program uses each"
        )]
        #[derive(Clone, Copy, Debug)]
        $($vis)* struct $f;

        #[allow(dead_code, deprecated, reason = "a deprecated method still works")]
        impl $f {
            /// What a list of methods shows.
            $($vis)* const INFO: $crate::method::MethodInfo = $crate::method::MethodInfo {
                name: ::std::borrow::Cow::Borrowed($wire),
                signature: ::std::borrow::Cow::Borrowed($signature),
                docs: ::std::borrow::Cow::Borrowed(concat!($($doc, "\n"),*)),
                idempotent: $idempotent,
            };
        }

        #[allow(deprecated, reason = "a deprecated method still works")]
        impl $crate::method::Method for $f {
            type Args<'a> = ($($arg,)*);
            type Reply<'a> = $crate::__reply! { $reply };
            type Owned = $crate::__owned! { $reply };
            type Error = $error;

            fn name(&self) -> &str {
                $wire
            }

            fn id(&self) -> $crate::frame::MethodId {
                const { $crate::frame::MethodId::of($wire) }
            }

            fn is_idempotent(&self) -> bool {
                $idempotent
            }

            fn info(&self) -> $crate::method::MethodInfo {
                $f::INFO
            }

            fn into_owned(reply: Self::Reply<'_>) -> Self::Owned {
                $crate::__into_owned! { reply $reply }
            }
        }
    };
}

/// Writes a method's function of the stub, in a module inside the service's.
#[doc(hidden)]
#[macro_export]
macro_rules! __stub {
    (($($vis:tt)*) $f:ident $reply:tt ($error:ty) $signature:tt $wire:tt $idempotent:tt
     [$([$doc:expr])*] [$($other:tt)*]
     [$(($name:ident $arg:tt ($parameter:ty) ($value:expr)))*]) => {
        #[allow(
            clippy::all,
            dead_code,
            deprecated,
            unused_lifetimes,
            reason = "the signature is the user's, in a form that fits every method"
        )]
        impl<C: $crate::method::Caller> Stub<C> {
            $(#[doc = $doc])*
            $(#$other)*
            $($vis)* fn $f<'a>(
                &mut self,
                $($name: $parameter),*
            ) -> ::core::result::Result<$crate::__owned! { $reply }, $crate::error::CallError<$error>>
            {
                $crate::method::Caller::call(&mut self.0, super::$f, ($($value,)*))
            }
        }
    };
}

/// The reply's type in `Reply<'a>`.
#[doc(hidden)]
#[macro_export]
macro_rules! __reply {
    ((bin)) => { $crate::codec::Bin<'a> };
    ((raw)) => { $crate::codec::Raw<'a> };
    ((borrowed $type:ty)) => { &'a $type };
    ((own $type:ty)) => { $type };
}

/// The reply's type where it must outlive its frame.
#[doc(hidden)]
#[macro_export]
macro_rules! __owned {
    ((bin)) => { ::std::vec::Vec<u8> };
    ((raw)) => { $crate::codec::OwnedRaw };
    ((borrowed $type:ty)) => { <$type as ::std::borrow::ToOwned>::Owned };
    ((own $type:ty)) => { $type };
}

/// How the one is made of the other.
#[doc(hidden)]
#[macro_export]
macro_rules! __into_owned {
    ($reply:ident (bin)) => {
        $reply.to_vec()
    };
    ($reply:ident (raw)) => {
        $reply.to_owned()
    };
    ($reply:ident (borrowed $type:ty)) => {
        ::std::borrow::ToOwned::to_owned($reply)
    };
    ($reply:ident (own $type:ty)) => {
        $reply
    };
}
