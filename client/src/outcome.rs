//! From an answer's bytes to what the caller asked for.

use onceloop_protocol::codec::{CodecError, decode_whole};
use onceloop_protocol::error::{CallError, Class, Code, Fault};
use onceloop_protocol::method::Method;
use onceloop_protocol::session::Answer;

/// Reads an answer as the types of its method. The reply may borrow from the answer.
///
/// # Errors
/// As for a call: the kinds of [`CallError`] tell whether it ran.
pub fn outcome<'a, M: Method>(answer: Answer<'a>) -> Result<M::Reply<'a>, CallError<M::Error>> {
    match answer {
        Answer::Reply(body) => {
            decode_whole(body).map_err(|error| CallError::Executed(unreadable("reply", &error)))
        }
        Answer::Application(details) => Err(match decode_whole::<M::Error>(&details) {
            Ok(error) => CallError::Application(error),
            Err(error) => CallError::Executed(unreadable("error", &error)),
        }),
        Answer::Executed(fault) => Err(CallError::Executed(fault)),
        Answer::NotExecuted(fault) => Err(CallError::NotExecuted(fault)),
        Answer::Indeterminate(fault) => Err(CallError::Indeterminate(fault)),
    }
}

/// The same, in a form that outlives the answer.
pub(crate) fn owned_outcome<M: Method>(
    answer: Answer<'_>,
) -> Result<M::Owned, CallError<M::Error>> {
    outcome::<M>(answer).map(M::into_owned)
}

/// Both ends must agree on a method's types; where they do not, the handler has run all the same.
fn unreadable(what: &str, error: &CodecError) -> Fault {
    Fault {
        code: Some(Code::Malformed),
        class: Class::Executed,
        message: format!("the {what} is not of the type declared here: {error}"),
        retry_after_ms: None,
    }
}
