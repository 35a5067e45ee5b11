//! A handler behind its type: from argument bytes to a reply's bytes.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use onceloop_protocol::codec::{CodecError, DecodeArgs, Encode};
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::MethodId;
use onceloop_protocol::method::{Method, MethodInfo};

use crate::{Context, Responder};

/// What became of a handler. What is rare is boxed, so that what is not comes back in a register.
pub(crate) enum Ended {
    /// It was not started: the arguments do not fit.
    BadArguments(Box<CodecError>),
    /// It will answer later, by its responder.
    Deferred,
    /// It failed, or its reply cannot be had: the body of the ERROR frame.
    Failed(Box<ErrorBody<'static>>),
    /// The reply stands at the end of the output.
    Replied,
}

type Run<S> = Box<dyn for<'a> Fn(&'a [u8], &'a mut Context<'_, S>, &mut Vec<u8>) -> Ended>;

/// A method and the function that serves it.
pub(crate) struct Handler<S: 'static> {
    pub(crate) info: MethodInfo,
    pub(crate) is_idempotent: bool,
    /// All that it does that is to last is in the store.
    pub(crate) is_transactional: bool,
    /// A panic is not the call's answer but the program's end.
    pub(crate) stops_on_panic: bool,
    run: Run<S>,
}

impl<S: 'static> Handler<S> {
    pub(crate) fn new<M, F>(method: &M, handler: F) -> Self
    where
        M: Method,
        F: for<'a> Fn(M::Args<'a>, &'a mut Context<'_, S>) -> Result<M::Reply<'a>, M::Error>
            + 'static,
    {
        Handler {
            info: method.info(),
            is_idempotent: method.is_idempotent(),
            is_transactional: false,
            stops_on_panic: false,
            run: Box::new(move |body, cx, out| {
                let args = match M::Args::decode_args(body) {
                    Ok(args) => args,
                    Err(error) => return Ended::BadArguments(error.into()),
                };
                encode_result::<M>(handler(args, cx), out)
            }),
        }
    }

    pub(crate) fn deferred<M, F>(method: &M, handler: F) -> Self
    where
        M: Method,
        F: for<'a> Fn(M::Args<'a>, Responder<S, M>, &'a mut Context<'_, S>) + 'static,
    {
        Handler {
            info: method.info(),
            is_idempotent: method.is_idempotent(),
            is_transactional: false,
            stops_on_panic: false,
            run: Box::new(move |body, cx, _| {
                let args = match M::Args::decode_args(body) {
                    Ok(args) => args,
                    Err(error) => return Ended::BadArguments(error.into()),
                };
                let responder = Responder::new(cx.call, cx.registry);
                handler(args, responder, cx);
                Ended::Deferred
            }),
        }
    }

    /// Declares that all that the handler does that is to last is in the store.
    pub(crate) fn transactional(self) -> Self {
        Handler { is_transactional: true, ..self }
    }

    /// Runs the handler. What stands in `out` from `begin` on is its answer. A panic is caught: the
    /// handler has run, and that is its answer. What it had changed in the program's state by then
    /// stays changed; a program that would rather stop than go on with that gets the panic itself.
    #[inline]
    pub(crate) fn run(
        &self,
        body: &[u8],
        cx: &mut Context<'_, S>,
        begin: usize,
        out: &mut Vec<u8>,
    ) -> Ended {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(body, cx, out))) {
            Ok(ended) => ended,
            Err(panic) => {
                // Also for a program that goes on all the same: no half of an answer goes out.
                out.truncate(begin);
                self.panicked(panic)
            }
        }
    }

    #[cold]
    fn panicked(&self, panic: Box<dyn Any + Send>) -> Ended {
        let name = &self.info.name;
        let what = panic_message(&*panic);
        log::error!("the handler of {name} panicked: {what}");
        if self.stops_on_panic {
            resume_unwind(panic);
        }
        let message = format!("the handler of {name} panicked");
        Ended::Failed(ErrorBody::new(Code::ApplicationError, message).into())
    }
}

/// Appends a handler's reply to `out`, or tells its error.
pub(crate) fn encode_result<M: Method>(
    result: Result<M::Reply<'_>, M::Error>,
    out: &mut Vec<u8>,
) -> Ended {
    let start = out.len();
    match result {
        Ok(reply) => match reply.encode(out) {
            Ok(()) => Ended::Replied,
            Err(error) => {
                out.truncate(start);
                let message = format!("the call ran, but its reply does not encode: {error}");
                Ended::Failed(ErrorBody::new(Code::ApplicationError, message).into())
            }
        },
        Err(error) => Ended::Failed(application_error(&error).into()),
    }
}

fn application_error<E: Encode + std::fmt::Display>(error: &E) -> ErrorBody<'static> {
    let mut body = ErrorBody::new(Code::ApplicationError, error.to_string());
    let mut details = Vec::new();
    match error.encode(&mut details) {
        Ok(()) => body.details = Some(details.into()),
        Err(encoding) => log::error!("an error value does not encode: {encoding}"),
    }
    body
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The handlers of a server by the id of their method.
pub(crate) struct Handlers<S: 'static>(HashMap<u64, Handler<S>, BuildHasherDefault<IdHasher>>);

impl<S: 'static> Handlers<S> {
    pub(crate) fn new() -> Self {
        Handlers(HashMap::default())
    }

    /// Lets panics through to the program.
    pub(crate) fn stop_on_panic(&mut self) {
        for handler in self.0.values_mut() {
            handler.stops_on_panic = true;
        }
    }

    #[inline]
    pub(crate) fn find(&self, id: MethodId) -> Option<&Handler<S>> {
        self.0.get(&id.0)
    }

    /// Adds a handler, and returns the one that has its id already.
    pub(crate) fn add(&mut self, handler: Handler<S>) -> Option<&MethodInfo> {
        let id = MethodId::of(&handler.info.name).0;
        if self.0.contains_key(&id) {
            return self.0.get(&id).map(|other| &other.info);
        }
        self.0.insert(id, handler);
        None
    }

    /// Returns the methods by name.
    pub(crate) fn infos(&self) -> Vec<&MethodInfo> {
        let mut infos: Vec<_> = self.0.values().map(|handler| &handler.info).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }
}

/// Ids are hashes already, and the server alone decides which are in the map.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}
