//! The methods that every server has.

use onceloop_protocol::method::MethodInfo;

use crate::core::Core;
use crate::handler::{Handler, Handlers};
use crate::{Context, Stats};

onceloop_protocol::service! {
    /// What a server tells of itself.
    pub mod onceloop {
        /// Lists the methods of this server, by name.
        #[idempotent]
        fn methods() -> Vec<MethodInfo>;
        /// Answers at once: is the server there?
        #[idempotent]
        fn ping();
        /// Tells the server's numbers.
        #[idempotent]
        fn stats() -> Stats;
    }
}

/// Adds the handlers of these methods.
pub(crate) fn add<S: 'static>(handlers: &mut Handlers<S>) {
    let builtin = [
        Handler::new(&onceloop::methods, |(), cx: &mut Context<'_, S>| {
            let core = core(cx);
            let infos = core.map(|core| core.handlers.infos().into_iter().map(tidy).collect());
            Ok(infos.unwrap_or_default())
        }),
        Handler::new(&onceloop::ping, |(), _| Ok(())),
        Handler::new(&onceloop::stats, |(), cx: &mut Context<'_, S>| {
            Ok(core(cx).map(Stats::of).unwrap_or_default())
        }),
    ];
    for handler in builtin {
        // They change nothing, so there is nothing to be written down before they start.
        let taken = handlers.add(handler.transactional());
        debug_assert!(taken.is_none(), "the builder refuses names of this service");
    }
}

/// Takes off the space that stands before each line of a doc comment.
fn tidy(info: &MethodInfo) -> MethodInfo {
    let lines: Vec<&str> = info.docs.lines().map(str::trim).collect();
    MethodInfo { docs: lines.join("\n").trim_end().to_owned().into(), ..info.clone() }
}

fn core<'a, S: 'static>(cx: &'a Context<'_, S>) -> Option<&'a Core<S>> {
    cx.registry.get(cx.call.core)
}
