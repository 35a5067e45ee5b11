//! A client's handle for other threads: a callback, a channel, or a wait.
//!
//! Arguments are encoded and waited-for replies decoded on the calling thread; only bytes cross.
//! Whatever happens to the loop, each call is answered: what is dropped with the loop answers as it
//! is dropped.

use std::fmt;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, ThreadId};

use onceloop_protocol::codec::EncodeArgs;
use onceloop_protocol::error::{CallError, Class, Code, Fault};
use onceloop_protocol::method::{Caller, Method};
use onceloop_protocol::session::Answer;
use onceloop_reactor::{Registry, Remote};

use crate::options::Request;
use crate::outcome::owned_outcome;
use crate::{CallOptions, Client};

/// Calls through a [`Client`] from any thread.
///
/// `Clone` and `Send`, even if the program's state is neither. What it posts waits without a bound
/// until the loop takes it; from there on `Limits::queued_calls_max` holds.
pub struct Handle<S: 'static> {
    remote: Remote<S>,
    client: Client<S>,
    /// The thread of the loop, which must not wait for itself.
    loop_thread: ThreadId,
}

impl<S: 'static> Handle<S> {
    /// Made on the thread of the loop, as the registry is only there.
    pub(crate) fn new(remote: Remote<S>, client: Client<S>) -> Handle<S> {
        Handle { remote, client, loop_thread: thread::current().id() }
    }

    /// Calls `method`, exactly once within the default time; see [`Handle::call_with`].
    pub fn call<M, F>(&self, method: M, args: M::Args<'_>, callback: F)
    where
        M: Method,
        F: FnOnce(Result<M::Owned, CallError<M::Error>>) + Send + 'static,
    {
        self.call_with(CallOptions::new(), method, args, callback);
    }

    /// Calls `method` as `options` say; `callback` runs exactly once, on the loop's thread.
    ///
    /// If the loop is gone, or goes with the call unanswered, it runs where the call is dropped: on
    /// this thread before this returns, or on the one that drops the loop.
    pub fn call_with<M, F>(&self, options: CallOptions, method: M, args: M::Args<'_>, callback: F)
    where
        M: Method,
        F: FnOnce(Result<M::Owned, CallError<M::Error>>) + Send + 'static,
    {
        let callback = move |answer: Answer<'_>| callback(owned_outcome::<M>(answer));
        self.post::<M>(options, &method, args, callback);
    }

    /// Calls `method`, exactly once within the default time; its result comes by the channel.
    pub fn call_channel<M>(
        &self,
        method: M,
        args: M::Args<'_>,
    ) -> Receiver<Result<M::Owned, CallError<M::Error>>>
    where
        M: Method,
        M::Owned: Send,
        M::Error: Send,
    {
        let (sender, receiver) = mpsc::channel();
        self.call(method, args, move |result| {
            // A receiver that is gone does not want to know.
            let _ = sender.send(result);
        });
        receiver
    }

    /// Calls `method` as `options` say and waits for its reply.
    ///
    /// # Errors
    /// See [`CallError`]: its kinds tell whether the method ran. If the loop goes while this waits,
    /// the call ends like one whose client was closed. On the loop's own thread it is not executed:
    /// the loop would wait for itself.
    pub fn wait<M: Method>(
        &self,
        options: CallOptions,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        if thread::current().id() == self.loop_thread {
            let message = "a wait on the loop's own thread would never end: use a callback";
            return Err(CallError::NotExecuted(Fault::new(Code::Cancelled, message)));
        }
        let (sender, receiver) = mpsc::channel();
        self.post::<M>(options, &method, args, move |answer| {
            let _ = sender.send(Kept::of(answer));
        });
        match receiver.recv() {
            Ok(kept) => owned_outcome::<M>(kept.as_answer()),
            Err(_) => Err(CallError::Indeterminate(loop_gone(Class::Unknown))),
        }
    }

    /// Runs `task` on the loop, with the client and its registry.
    ///
    /// # Errors
    /// [`onceloop_reactor::Closed`] if the loop is gone.
    pub fn post_task(
        &self,
        task: impl FnOnce(Client<S>, &mut Registry<S>) + Send + 'static,
    ) -> Result<(), onceloop_reactor::Closed> {
        let client = self.client;
        self.remote.post(move |cx| task(client, cx.registry))
    }

    fn post<M: Method>(
        &self,
        options: CallOptions,
        method: &M,
        args: M::Args<'_>,
        callback: impl FnOnce(Answer<'_>) + Send + 'static,
    ) {
        let request = options.request(method);
        let mut promise = Promise { callback: Some(callback), was_taken: false };
        let mut bytes = Vec::new();
        let encoded = args.encode_args(&mut bytes);
        let client = self.client;
        // If it cannot be posted, the task is dropped, and its promise answers.
        let _ = self.remote.post(move |cx| match encoded {
            Ok(()) => make(client, cx.registry, &request, &bytes, promise),
            Err(error) => {
                let fault = Fault::new(Code::BadArguments, error.to_string());
                promise.keep(Answer::NotExecuted(fault));
            }
        });
    }
}

/// Makes a call that another thread has posted.
fn make<S: 'static, F: FnOnce(Answer<'_>) + Send + 'static>(
    client: Client<S>,
    registry: &mut Registry<S>,
    request: &Request,
    args: &[u8],
    mut promise: Promise<F>,
) {
    if let Some(fault) = client.refusal(registry) {
        return promise.keep(Answer::NotExecuted(fault));
    }
    promise.was_taken = true;
    let continuation = Box::new(move |answer: Answer<'_>, _: &mut onceloop_reactor::Cx<'_, S>| {
        promise.keep(answer)
    });
    client.call_encoded(registry, request, args, continuation);
}

impl<S: 'static> Caller for Handle<S> {
    fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        self.wait(CallOptions::new(), method, args)
    }
}

// Derived, these would ask the same of `S`.
impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Handle { remote: self.remote.clone(), client: self.client, loop_thread: self.loop_thread }
    }
}

impl<S> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("client", &self.client).finish_non_exhaustive()
    }
}

/// A callback that runs exactly once: with the answer, or as it is dropped.
struct Promise<F: FnOnce(Answer<'_>)> {
    callback: Option<F>,
    /// The client has the call: it may have left.
    was_taken: bool,
}

impl<F: FnOnce(Answer<'_>)> Promise<F> {
    fn keep(&mut self, answer: Answer<'_>) {
        if let Some(callback) = self.callback.take() {
            callback(answer);
        }
    }
}

impl<F: FnOnce(Answer<'_>)> Drop for Promise<F> {
    fn drop(&mut self) {
        let answer = if self.was_taken {
            Answer::Indeterminate(loop_gone(Class::Unknown))
        } else {
            Answer::NotExecuted(loop_gone(Class::NotExecuted))
        };
        self.keep(answer);
    }
}

fn loop_gone(class: Class) -> Fault {
    Fault {
        code: Some(Code::Cancelled),
        class,
        message: "the loop of the client is gone".to_owned(),
        retry_after_ms: None,
    }
}

/// An answer that crosses threads.
enum Kept {
    Reply(Vec<u8>),
    Other(Answer<'static>),
}

impl Kept {
    fn of(answer: Answer<'_>) -> Kept {
        match answer {
            Answer::Reply(body) => Kept::Reply(body.to_vec()),
            Answer::Application(details) => {
                Kept::Other(Answer::Application(details.into_owned().into()))
            }
            Answer::Executed(fault) => Kept::Other(Answer::Executed(fault)),
            Answer::NotExecuted(fault) => Kept::Other(Answer::NotExecuted(fault)),
            Answer::Indeterminate(fault) => Kept::Other(Answer::Indeterminate(fault)),
        }
    }

    fn as_answer(&self) -> Answer<'_> {
        match self {
            Kept::Reply(body) => Answer::Reply(body),
            Kept::Other(answer) => answer.clone(),
        }
    }
}
