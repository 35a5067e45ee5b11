//! What went wrong between values and bytes.

use std::fmt;

use rmp_serde::{decode, encode};

use crate::scan::ScanError;

/// Bytes of a message that came from a type's own code: it may quote a value as long as the body.
const MESSAGE_BYTES_MAX: usize = 256;

/// Why a value could not be written or read. The message is for the caller; it may quote the
/// caller's data, so it does not belong into a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// One argument is wrong.
    Argument {
        /// Which, from 1.
        position: usize,
        /// What is wrong with it.
        error: Box<CodecError>,
    },
    /// The method takes another number of arguments.
    ArgumentCount {
        /// How many it takes.
        takes: usize,
        /// How many there are.
        got: usize,
    },
    /// The value is nested too deeply.
    Depth,
    /// The arguments are not an array.
    NotAnArray,
    /// The bytes are not well-formed MessagePack within the limits.
    Scan(ScanError),
    /// There are bytes after the value.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The bytes are a value of another type.
    Undecodable(String),
    /// The value has no form in MessagePack.
    Unencodable(String),
}

impl CodecError {
    /// Wraps what is wrong with the argument at `index`.
    #[cold]
    pub(super) fn of_argument(index: usize, error: CodecError) -> CodecError {
        CodecError::Argument { position: index + 1, error: Box::new(error) }
    }

    #[cold]
    pub(super) fn unencodable(error: &encode::Error) -> CodecError {
        CodecError::Unencodable(bounded(error.to_string()))
    }

    #[cold]
    pub(super) fn undecodable(error: &decode::Error) -> CodecError {
        match error {
            decode::Error::DepthLimitExceeded => CodecError::Depth,
            // The rest of rmp-serde's errors speak of markers and readers.
            decode::Error::TypeMismatch(marker) => {
                CodecError::Undecodable(format!("a value of another type ({marker:?})"))
            }
            decode::Error::OutOfRange => {
                CodecError::Undecodable("a number out of the type's range".into())
            }
            decode::Error::LengthMismatch(takes) => CodecError::Undecodable(format!(
                "an array or map with another number of elements than {takes}"
            )),
            decode::Error::Utf8Error(_) => {
                CodecError::Undecodable("a string that is not UTF-8".into())
            }
            other => CodecError::Undecodable(bounded(other.to_string())),
        }
    }
}

/// Cuts a message at the limit.
fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(cut.unwrap_or(0));
        message.push('…');
    }
    message
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Argument { position, error } => write!(f, "argument {position}: {error}"),
            CodecError::ArgumentCount { takes, got } => {
                let s = if *takes == 1 { "" } else { "s" };
                write!(f, "takes {takes} argument{s}, got {got}")
            }
            CodecError::Depth => f.write_str("nested too deeply"),
            CodecError::NotAnArray => f.write_str("the arguments are not an array"),
            CodecError::Scan(error) => write!(f, "{error}"),
            CodecError::Trailing { bytes } => write!(f, "{bytes} bytes after the value"),
            CodecError::Undecodable(message) | CodecError::Unencodable(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CodecError::Argument { error, .. } => Some(error),
            CodecError::Scan(error) => Some(error),
            _ => None,
        }
    }
}
