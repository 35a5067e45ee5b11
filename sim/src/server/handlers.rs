//! The ledger, served in every way there is.

use std::time::Duration;

use onceloop::{ApplicationError, Builder, Context, Cx, Method, Responder, Xid};

use super::ServerApp;
use super::broken::Broken;
use crate::Sabotage;
use crate::data::{self, Data, Key};
use crate::oracle::Process;
use crate::service::{Operation, Receipt, ledger};

/// A call that a handler has begun.
#[derive(Clone, Copy)]
struct Begun {
    by: Process,
    id: u32,
    xid: Option<Xid>,
}

pub(super) fn builder(state: &ServerApp) -> Builder<ServerApp> {
    let plan = &state.shared.plan.servers[state.me.host];
    let mut limits = plan.limits.clone();
    if state.me.boot > 1 {
        limits.body_bytes_max = plan.body_bytes_max_anew;
    }
    let mut builder = Builder::new();
    if plan.says_in_progress {
        builder = builder.answer_in_progress(Duration::from_millis(50));
    }
    if let Some(disk) = state.shared.ledgers.disk(state.me.host) {
        let store = Broken::new(disk.open(), state.shared.plan.sabotage);
        builder = durable(builder.store(store));
    }
    builder
        .limits(limits)
        .deferred(ledger::apply_when_ready, |(id, operation, refusals), responder, cx| {
            let begun = begin(cx, id, &operation);
            let delay = delay(cx.state, id.wrapping_mul(7));
            cx.registry.after(delay, move |cx| {
                if let Some(after) = put_off(cx.state, begun, refusals) {
                    return responder.retry_later(cx, after);
                }
                let receipt = take_effect(cx.state, begun, &operation, 0);
                end(cx, begun, responder, receipt);
            });
        })
        .method(ledger::apply, |(id, operation), cx| at_once(cx, id, &operation, 0))
        .method(ledger::apply_blindly, |(id, operation), cx| at_once(cx, id, &operation, 0))
        .method(ledger::read, |(id, operation), cx| at_once(cx, id, &operation, 0))
        .method(ledger::tell, |(id, operation), cx| at_once(cx, id, &operation, 0).map(|_| ()))
        .method(ledger::apply_badly, |(id, operation), cx| {
            at_once(cx, id, &operation, 0)?;
            panic!("on purpose")
        })
        .method(ledger::apply_largely, |(id, operation, bytes), cx| {
            at_once(cx, id, &operation, bytes)
        })
        .deferred(ledger::apply_after, |(id, operation, number), responder, cx| {
            let begun = begin(cx, id, &operation);
            let delay = delay(cx.state, number);
            cx.registry.after(delay, move |cx| {
                let receipt = take_effect(cx.state, begun, &operation, 0);
                end(cx, begun, responder, receipt);
            });
        })
        .deferred(ledger::apply_late, |(id, operation, number), responder, cx| {
            let begun = begin(cx, id, &operation);
            let receipt = take_effect(cx.state, begun, &operation, 0);
            let delay = delay(cx.state, number);
            cx.registry.after(delay, move |cx| end(cx, begun, responder, receipt));
        })
        .deferred(ledger::apply_offloaded, |(id, operation, number), responder, cx| {
            let begun = begin(cx, id, &operation);
            let done = move |result: Result<u32, _>, cx: &mut Cx<'_, ServerApp>| {
                assert!(result.is_ok_and(|result| result == number), "the job's own result");
                let receipt = take_effect(cx.state, begun, &operation, 0);
                end(cx, begun, responder, receipt);
            };
            let offloaded = cx.registry.offload(move || number, done);
            assert!(offloaded.is_ok(), "there is room for a job per call");
        })
        .deferred(ledger::apply_silently, |(id, operation), responder, cx| {
            let begun = begin(cx, id, &operation);
            take_effect(cx.state, begun, &operation, 0);
            note_end(cx.state, begun);
            drop(responder);
        })
}

/// Adds what only a durable server serves.
fn durable(builder: Builder<ServerApp>) -> Builder<ServerApp> {
    builder
        .on_fatal(|_, cx| cx.registry.stop())
        .transactional(ledger::commit, |(id, operation), cx| commit(cx, id, &operation))
        .transactional(ledger::look, |(id, operation), cx| commit(cx, id, &operation))
        .transactional(ledger::commit_badly, |(id, operation), cx| {
            let begun = begin(cx, id, &operation);
            if let Operation::Transfer { from, amount, .. } = operation {
                data::take(&mut Transaction(cx), from, amount);
            } else {
                data::apply(&mut Transaction(cx), id, &operation);
            }
            note_end(cx.state, begun);
            panic!("on purpose")
        })
        .transactional(ledger::commit_when_ready, |(id, operation, refusals), cx| {
            if cx.state.shared.oracle.borrow().refusals(id) >= refusals {
                return commit(cx, id, &operation);
            }
            let begun = begin(cx, id, &operation);
            data::apply(&mut Transaction(cx), id, &operation);
            if let Some(after) = put_off(cx.state, begun, refusals) {
                cx.retry_later(after);
            }
            Err("it is dropped".into())
        })
}

/// The store, as a handler has it.
struct Transaction<'a, 'b>(&'a mut Context<'b, ServerApp>);

impl Data for Transaction<'_, '_> {
    fn read(&mut self, key: Key) -> Option<Vec<u8>> {
        self.0.read(&key.bytes())
    }

    fn write(&mut self, key: Key, value: Vec<u8>) {
        self.0.write(&key.bytes(), Some(&value));
    }
}

/// Runs a handler of which the effect and the answer are one.
fn commit(
    cx: &mut Context<'_, ServerApp>,
    id: u32,
    operation: &Operation,
) -> Result<Receipt, ApplicationError> {
    let begun = begin(cx, id, operation);
    let (value, before) = data::apply(&mut Transaction(cx), id, operation);
    let receipt = Receipt::new(id, operation, value);
    cx.state.shared.oracle.borrow_mut().took_effect(id, receipt.clone(), before);
    note_end(cx.state, begun);
    Ok(receipt)
}

/// Returns after what time a call is to come again, unless it has come so many times.
fn put_off(state: &mut ServerApp, begun: Begun, refusals: u32) -> Option<Duration> {
    let mut oracle = state.shared.oracle.borrow_mut();
    if begun.xid.is_none() || oracle.refusals(begun.id) >= refusals {
        return None;
    }
    oracle.put_off(begun.by, begun.id, begun.xid);
    drop(oracle);
    Some(Duration::from_millis(state.random.spread(1, 100)))
}

/// Runs a handler that has done everything when it returns.
fn at_once(
    cx: &mut Context<'_, ServerApp>,
    id: u32,
    operation: &Operation,
    padding: u32,
) -> Result<Receipt, ApplicationError> {
    let begun = begin(cx, id, operation);
    let receipt = take_effect(cx.state, begun, operation, padding);
    note_end(cx.state, begun);
    Ok(receipt)
}

fn begin(cx: &mut Context<'_, ServerApp>, id: u32, operation: &Operation) -> Begun {
    let begun = Begun { by: cx.state.me, id, xid: cx.xid() };
    let mut oracle = cx.state.shared.oracle.borrow_mut();
    oracle.begun(begun.by, id, begun.xid);
    oracle.received(id, operation);
    begun
}

/// Does what is asked for a call. The receipt is at least so many bytes long.
fn take_effect(
    state: &mut ServerApp,
    begun: Begun,
    operation: &Operation,
    padding: u32,
) -> Receipt {
    let mut receipt = take_effect_once(state, begun, operation, padding);
    match state.shared.plan.sabotage {
        Sabotage::EffectTwice if state.random.chance(20_000) => {
            receipt = take_effect_once(state, begun, operation, padding);
        }
        Sabotage::OtherReply if state.random.chance(20_000) => receipt.call ^= 1,
        _ => {}
    }
    receipt
}

fn take_effect_once(
    state: &mut ServerApp,
    begun: Begun,
    operation: &Operation,
    padding: u32,
) -> Receipt {
    let is_lost = state.shared.plan.sabotage == Sabotage::NoEffect && state.random.chance(20_000);
    let ledger = state.shared.ledgers.memory(begun.by.host);
    let (value, before) = match is_lost {
        // Done on a copy, which is thrown away.
        true => data::apply(&mut ledger.borrow().clone(), begun.id, operation),
        false => data::apply(&mut *ledger.borrow_mut(), begun.id, operation),
    };
    let mut receipt = Receipt::new(begun.id, operation, value);
    receipt.padding.bytes = receipt.padding.bytes.max(padding);
    state.shared.oracle.borrow_mut().took_effect(begun.id, receipt.clone(), before);
    receipt
}

/// Answers a call that was deferred.
fn end<M>(
    cx: &mut Cx<'_, ServerApp>,
    begun: Begun,
    responder: Responder<ServerApp, M>,
    receipt: Receipt,
) where
    M: for<'a> Method<Reply<'a> = Receipt>,
{
    if cx.state.shared.plan.sabotage == Sabotage::NoAnswer && cx.state.random.chance(50_000) {
        note_end(cx.state, begun);
        return std::mem::forget(responder);
    }
    note_end(cx.state, begun);
    responder.respond(cx, Ok(receipt));
}

fn note_end(state: &ServerApp, begun: Begun) {
    state.shared.oracle.borrow_mut().ended(begun.by, begun.id, begun.xid);
}

/// Returns how long a handler takes.
fn delay(state: &ServerApp, number: u32) -> Duration {
    let slowness = state.shared.plan.servers[state.me.host].slowness;
    slowness * (number % 1_000) / 1_000
}
