//! Codes, their classes, and the answer to the only question that matters after a failure: *did it
//! run?*

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What an error says about the execution of a call. Carried in every ERROR frame, so that a peer
/// which does not know a newer [`Code`] still knows this.
///
/// Exhaustive: a newer peer's class reads as `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// N: this copy of the call was not executed and its xid is not consumed.
    NotExecuted = 1,
    /// P: another copy of it is being executed.
    InProgress = 2,
    /// E: it was executed.
    Executed = 3,
    /// U: nobody can tell.
    Unknown = 4,
    /// X: the client broke the protocol.
    ClientBug = 5,
}

impl Class {
    /// Returns the class with this number; a number from a newer peer is `Unknown`, which promises
    /// nothing.
    pub const fn from_wire(number: u8) -> Class {
        match number {
            1 => Class::NotExecuted,
            2 => Class::InProgress,
            3 => Class::Executed,
            5 => Class::ClientBug,
            _ => Class::Unknown,
        }
    }
}

/// Declares the codes once: number, wire name, class and meaning.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $wire:literal, $class:ident;)*) => {
        /// A stable error code. Numbers and names never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// Returns the code with this number, if this version knows it.
            pub const fn from_wire(number: u16) -> Option<Code> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }

            /// Returns the code's name, as it stands in documents and messages.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => $wire),* }
            }

            /// Returns what the code says about execution.
            pub const fn class(self) -> Class {
                match self { $(Code::$name => Class::$class),* }
            }
        }
    };
}

codes! {
    /// The server has no room now: a limit of calls, sessions or bytes.
    Busy = 1, "BUSY", NotExecuted;
    /// The seq is beyond the window; the answer carries the floor.
    Window = 2, "WINDOW", NotExecuted;
    /// The server is shutting down and takes no new calls.
    Draining = 3, "DRAINING", NotExecuted;
    /// The deadline had passed before the handler started.
    Deadline = 4, "DEADLINE", NotExecuted;
    /// The server has no method of that name.
    NoMethod = 5, "NO_METHOD", NotExecuted;
    /// The arguments do not fit the method.
    BadArguments = 6, "BAD_ARGUMENTS", NotExecuted;
    /// The caller may not call this.
    NotAuthorized = 7, "NOT_AUTHORIZED", NotExecuted;
    /// An unprotected call of a method that is not declared idempotent.
    NotProtected = 8, "NOT_PROTECTED", NotExecuted;
    /// Cancelled before its handler started.
    Cancelled = 9, "CANCELLED", NotExecuted;
    /// The body is larger than the server takes.
    TooLarge = 10, "TOO_LARGE", NotExecuted;
    /// The body is not well-formed MessagePack within the limits.
    Malformed = 11, "MALFORMED", NotExecuted;
    /// The frame carries a flag that this version must understand and does not.
    Unsupported = 12, "UNSUPPORTED", NotExecuted;
    /// A copy of this call is running; its reply will come.
    InProgress = 32, "IN_PROGRESS", InProgress;
    /// The handler ran and failed.
    ApplicationError = 64, "APPLICATION_ERROR", Executed;
    /// The handler ran; its reply was too large to keep for a second answer.
    NotRetained = 65, "NOT_RETAINED", Executed;
    /// The server does not know this session, or it is not the caller's.
    SessionUnknown = 96, "SESSION_UNKNOWN", Unknown;
    /// The server crashed while the call ran.
    InDoubt = 97, "IN_DOUBT", Unknown;
    /// The call crashed the server too often.
    Poisoned = 98, "POISONED", Unknown;
    /// A seq came back with other arguments.
    XidReused = 128, "XID_REUSED", ClientBug;
    /// A newer connection or incarnation of this client is attached.
    Fenced = 129, "FENCED", ClientBug;
    /// The seq was acknowledged before.
    Stale = 130, "STALE", ClientBug;
    /// The peer broke the protocol.
    Protocol = 131, "PROTOCOL", ClientBug;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The body of an ERROR frame: a named map, so that it may gain fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody<'a> {
    /// A [`Class`], by number.
    pub class: u8,
    /// A [`Code`], by number.
    pub code: u16,
    /// For a person: what was wrong and what to do.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// The method's own error value, as MessagePack; only with APPLICATION_ERROR.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none", with = "details")]
    pub details: Option<Cow<'a, [u8]>>,
    /// Milliseconds after which another try may fare better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// With WINDOW: the highest acknowledgement the server has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<u64>,
}

impl<'a> ErrorBody<'a> {
    /// Returns a body with a code, the code's class and a message.
    pub fn new(code: Code, message: impl Into<Cow<'a, str>>) -> Self {
        ErrorBody {
            class: code.class() as u8,
            code: code as u16,
            message: message.into(),
            details: None,
            retry_after_ms: None,
            floor: None,
        }
    }
}

/// `details` travels as a bin, so that reading an ErrorBody never needs the method's types.
mod details {
    use std::borrow::Cow;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    #[expect(clippy::ref_option, reason = "the signature serde's `with` asks for")]
    pub(super) fn serialize<S: Serializer>(
        details: &Option<Cow<'_, [u8]>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match details {
            Some(bytes) => serializer.serialize_bytes(bytes),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Cow<'de, [u8]>>, D::Error> {
        struct Bin;
        impl<'de> Visitor<'de> for Bin {
            type Value = Option<Cow<'de, [u8]>>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E: Error>(self, v: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Some(Cow::Borrowed(v)))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }
        deserializer.deserialize_bytes(Bin)
    }
}

/// An error with its code, in owned form: what a caller sees of a refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The stable code; `None` for one of a newer peer.
    pub code: Option<Code>,
    /// What it says about execution.
    pub class: Class,
    /// For a person: what was wrong and what to do.
    pub message: String,
    /// After how many milliseconds another try may fare better.
    pub retry_after_ms: Option<u32>,
}

impl Fault {
    /// Returns a fault with a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault {
            code: Some(code),
            class: code.class(),
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// Returns the fault that an ERROR frame's body tells of.
    pub fn from_body(body: &ErrorBody<'_>) -> Fault {
        Fault {
            code: Code::from_wire(body.code),
            class: Class::from_wire(body.class),
            message: body.message.clone().into_owned(),
            retry_after_ms: body.retry_after_ms,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.code.map_or("an error of a newer version", Code::name);
        write!(f, "{name}: {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// Whether a call's handler ran.
///
/// Exhaustive: there is no fourth answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It ran, once.
    Yes,
    /// It did not run and never will: this is proved, not assumed.
    No,
    /// It may have run, or may still.
    Unknown,
}

/// Why a call gave no reply. `E` is the method's own error.
///
/// The kinds answer *did it run?*, and only that decides what a caller may do next: after
/// `NotExecuted` the same thing may be asked again, after `Indeterminate` it may not unless a second
/// run does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The handler ran and returned the error its service declares.
    Application(E),
    /// The handler ran, but its result cannot be had: it panicked, or its reply was not kept, or
    /// does not decode as the declared type.
    Executed(Fault),
    /// Nobody knows whether the handler ran.
    Indeterminate(Fault),
    /// The handler did not run and never will.
    NotExecuted(Fault),
}

impl<E> CallError<E> {
    /// Returns whether the handler ran.
    pub fn ran(&self) -> Ran {
        match self {
            CallError::Application(_) | CallError::Executed(_) => Ran::Yes,
            CallError::Indeterminate(_) => Ran::Unknown,
            CallError::NotExecuted(_) => Ran::No,
        }
    }

    /// Returns the stable code.
    pub fn code(&self) -> Option<Code> {
        match self {
            CallError::Application(_) => Some(Code::ApplicationError),
            CallError::Executed(fault)
            | CallError::Indeterminate(fault)
            | CallError::NotExecuted(fault) => fault.code,
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Application(error) => write!(f, "the call failed: {error}"),
            CallError::Executed(fault) => write!(f, "the call ran, but gave no result: {fault}"),
            CallError::Indeterminate(fault) => {
                write!(f, "the call may or may not have run: {fault}")
            }
            CallError::NotExecuted(fault) => write!(f, "the call did not run: {fault}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Application(error) => Some(error),
            CallError::Executed(fault)
            | CallError::Indeterminate(fault)
            | CallError::NotExecuted(fault) => Some(fault),
        }
    }
}

/// The error of a method that declares none: a code of the application's own and a message.
///
/// A handler makes one of any text: `Err("no such account".into())`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationError {
    /// What went wrong, for a person.
    pub message: String,
}

impl fmt::Display for ApplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApplicationError {}

impl<T: Into<String>> From<T> for ApplicationError {
    fn from(message: T) -> Self {
        ApplicationError { message: message.into() }
    }
}
