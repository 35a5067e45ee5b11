use onceloop::Xid;
use onceloop::reactor::sim::Faults;

use super::*;
use crate::data;
use crate::parcel::Parcel;
use crate::service::Value;
use crate::{Sabotage, Work};

const CLIENT: Process = Process { host: 1, boot: 1 };
const SERVER: Process = Process { host: 0, boot: 1 };

/// An oracle, and what happens told to it by hand.
struct Told {
    oracle: Oracle,
    ledgers: Ledgers,
}

impl Told {
    fn new() -> Told {
        let names = vec!["server-1".to_owned(), "client-1".to_owned()];
        let ledgers = Ledgers::new([None].into_iter());
        let plan = Plan::drawn(0, Sabotage::None);
        let world = World::new(0, Faults::none());
        Told { oracle: Oracle::new(world, names, ledgers.clone(), &plan), ledgers }
    }

    fn call(&mut self, operation: Operation, semantics: Semantics) -> u32 {
        let draft = Draft {
            operation,
            way: "apply",
            space: Space::Memory,
            ending: Ending::Receipt,
            is_idempotent: false,
            semantics,
            order: Order::Unordered,
            deadline: None,
            attempts: None,
            hedge_after: None,
        };
        self.oracle.called(CLIENT, 0, 0, draft)
    }

    fn add(&mut self) -> u32 {
        self.call(Operation::Add(1), Semantics::ExactlyOnce)
    }

    /// The handler runs, from its beginning to its end.
    fn run(&mut self, id: u32, seq: u64) -> Receipt {
        let xid = Some(Xid { session: 7, seq });
        self.oracle.begun(SERVER, id, xid);
        let receipt = self.take_effect(id);
        self.oracle.ended(SERVER, id, xid);
        receipt
    }

    fn take_effect(&mut self, id: u32) -> Receipt {
        let operation = self.oracle.calls[id as usize].draft.operation.clone();
        let (value, before) =
            data::apply(&mut *self.ledgers.memory(0).borrow_mut(), id, &operation);
        let receipt = Receipt::new(id, &operation, value);
        self.oracle.took_effect(id, receipt.clone(), before);
        receipt
    }

    fn answer(&mut self, id: u32, outcome: Outcome) {
        self.oracle.answered(id, outcome);
    }

    #[track_caller]
    fn assert_found(&self, kind: Kind, part: &str) {
        let found = self.oracle.violations();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].kind, kind);
        assert!(found[0].what.contains(part), "{found:?}");
    }

    #[track_caller]
    fn assert_well(&mut self) {
        self.oracle.check();
        self.oracle.finish();
        assert_eq!(self.oracle.violations(), []);
    }
}

#[test]
fn calls_that_go_as_they_should_are_well() {
    let mut told = Told::new();
    let ids = [told.add(), told.add(), told.add()];
    let receipt = told.run(ids[0], 1);
    told.answer(ids[0], Outcome::Receipt(receipt));
    told.oracle.cancelled(ids[1]);
    told.run(ids[1], 2);
    told.answer(ids[1], Outcome::Indeterminate(Some(Code::Cancelled)));
    told.oracle.cancelled(ids[2]);
    told.answer(ids[2], Outcome::NotExecuted(Some(Code::Cancelled)));
    told.assert_well();
}

#[test]
fn a_second_effect_is_a_double_execution_unless_the_call_is_unprotected() {
    let mut told = Told::new();
    let blind = told.call(Operation::Add(1), Semantics::AtLeastOnce);
    told.oracle.begun(SERVER, blind, None);
    told.take_effect(blind);
    told.oracle.begun(SERVER, blind, None);
    told.take_effect(blind);
    assert_eq!(told.oracle.violations(), []);
    let mut work = Work::default();
    told.oracle.count(&mut work);
    assert_eq!((work.orphaned, work.blind_doubles), (1, 1));
    let id = told.add();
    told.run(id, 1);
    // In another session, by another process: the call is the same.
    let other = Process { boot: 2, ..SERVER };
    told.oracle.begun(other, id, Some(Xid { session: 7, seq: 1 }));
    told.take_effect(id);
    told.assert_found(Kind::DoubleExecution, "took effect again");
}

#[test]
fn an_xid_that_runs_again_is_a_double_execution() {
    let mut told = Told::new();
    let (first, second) = (told.add(), told.add());
    told.run(first, 1);
    told.run(second, 1);
    told.assert_found(Kind::DoubleExecution, "it was call 0");
}

#[test]
fn a_reply_without_an_effect_is_lost() {
    let mut told = Told::new();
    let id = told.add();
    let receipt = Receipt::new(id, &Operation::Add(1), Value::Number(1));
    told.oracle.took_effect(id, receipt.clone(), 0);
    told.answer(id, Outcome::Receipt(receipt));
    told.assert_found(Kind::Lost, "I3");
}

#[test]
fn the_reply_of_another_call_is_wrong() {
    let mut told = Told::new();
    let (first, second) = (told.add(), told.add());
    told.run(first, 1);
    let receipt = told.run(second, 2);
    told.answer(first, Outcome::Receipt(receipt));
    told.assert_found(Kind::WrongReply, "I2");
}

#[test]
fn a_reply_that_no_execution_gave_is_wrong() {
    let mut told = Told::new();
    let id = told.add();
    let mut receipt = told.run(id, 1);
    receipt.value = Value::Number(99);
    told.answer(id, Outcome::Receipt(receipt));
    told.assert_found(Kind::WrongReply, "no execution gave");
}

#[test]
fn not_executed_is_wrong_of_a_call_that_ran_or_runs_later() {
    let mut told = Told::new();
    let id = told.add();
    told.run(id, 1);
    told.oracle.cancelled(id);
    told.answer(id, Outcome::NotExecuted(Some(Code::Cancelled)));
    told.assert_found(Kind::WrongReply, "I9");

    let mut told = Told::new();
    let id = told.add();
    told.oracle.cancelled(id);
    told.answer(id, Outcome::NotExecuted(Some(Code::Cancelled)));
    told.run(id, 1);
    told.assert_found(Kind::WrongReply, "I9");
}

#[test]
fn ends_without_a_cause_are_wrong() {
    for (outcome, part) in [
        (Outcome::Indeterminate(Some(Code::Stale)), "I4"),
        (Outcome::Indeterminate(Some(Code::Deadline)), "for no reason"),
        (Outcome::Indeterminate(Some(Code::SessionUnknown)), "for no reason"),
        (Outcome::NotExecuted(Some(Code::Busy)), "for no reason"),
        (Outcome::NotExecuted(Some(Code::NoMethod)), "for no reason"),
        (Outcome::Executed(Some(Code::ApplicationError)), "no execution gave"),
    ] {
        let mut told = Told::new();
        let id = told.add();
        // With a short lease a session may be unknown.
        told.oracle.has_short_leases = false;
        told.answer(id, outcome);
        told.assert_found(Kind::WrongReply, part);
    }
}

#[test]
fn arguments_that_are_not_the_callers_are_wrong() {
    let mut told = Told::new();
    let id = told.add();
    told.oracle.received(id, &Operation::Add(1));
    assert_eq!(told.oracle.violations(), []);
    told.oracle.received(id, &Operation::Add(2));
    told.assert_found(Kind::WrongReply, "other arguments");
}

#[test]
fn bodies_are_refused_if_they_are_too_large_and_only_then() {
    let refused = Outcome::NotExecuted(Some(Code::TooLarge));
    let (skipped, unsaid) = (Code::TooLarge, Code::ApplicationError);
    let (skipped, unsaid) = (Outcome::Executed(Some(skipped)), Outcome::Executed(Some(unsaid)));
    // What is sent and asked for, of at most 2 000 bytes for the server and 3 000 for the client.
    for (sent, asked, outcome, is_well) in [
        (1_000, 0, &refused, false),
        (2_001, 0, &refused, true),
        (0, 1_000, &unsaid, false),
        (0, 2_001, &unsaid, true),
        (0, 2_001, &skipped, false),
        (0, 3_001, &skipped, true),
    ] {
        let mut told = Told::new();
        told.oracle.body_bytes_max = vec![(2_000, 2_000), (3_000, 3_000)];
        let parcel = Parcel { of: 1, bytes: sent };
        let id = told.call(Operation::Parcel(parcel, asked), Semantics::ExactlyOnce);
        if matches!(outcome, Outcome::Executed(_)) {
            told.run(id, 1);
        }
        told.answer(id, outcome.clone());
        let found = told.oracle.violations();
        assert_eq!(found.is_empty(), is_well, "{sent}, {asked}, {outcome:?}: {found:?}");
    }
    for (sent, asked) in [(2_001, 0), (0, 2_001)] {
        let mut told = Told::new();
        told.oracle.body_bytes_max = vec![(2_000, 2_000), (3_000, 3_000)];
        let operation = Operation::Parcel(Parcel { of: 1, bytes: sent }, asked);
        let id = told.call(operation.clone(), Semantics::ExactlyOnce);
        let receipt = told.run(id, 1);
        told.oracle.received(id, &operation);
        told.answer(id, Outcome::Receipt(receipt));
        told.assert_found(Kind::WrongReply, "larger than it may be");
    }
}

#[test]
fn a_connection_that_is_lost_by_a_mistake_is_found_though_its_session_goes_on() {
    let mut told = Told::new();
    told.oracle.disconnected(CLIENT, "lost: connection reset");
    assert_eq!(told.oracle.violations(), []);
    told.oracle.disconnected(CLIENT, "PROTOCOL: a frame of kind 0");
    told.assert_found(Kind::Broken, "client-1 lost its connection");
}

#[test]
fn a_dropped_continuation_is_lost_unless_its_process_was_killed() {
    let mut told = Told::new();
    let id = told.add();
    told.oracle.dropped(id);
    told.oracle.check();
    told.assert_found(Kind::Lost, "dropped");

    let mut told = Told::new();
    let id = told.add();
    told.oracle.dropped(id);
    told.oracle.client_gone(CLIENT);
    told.assert_well();
}

#[test]
fn what_was_in_a_journal_is_told_again_and_alike() {
    let mut told = Told::new();
    let ids = [told.add(), told.add(), told.add()];
    let receipt = told.run(ids[0], 1);
    told.answer(ids[0], Outcome::Receipt(receipt.clone()));
    told.oracle.client_gone(CLIENT);
    let later = Process { boot: 2, ..CLIENT };
    // The third was not safe, and so it was not sent.
    told.oracle.recovers(later, 0, &ids[..2].iter().copied().collect());
    assert!(told.oracle.has_open_calls());
    told.answer(ids[0], Outcome::Receipt(receipt));
    let receipt = told.run(ids[1], 2);
    told.answer(ids[1], Outcome::Receipt(receipt));
    told.assert_well();
}

#[test]
fn a_call_that_was_not_in_the_journal_and_runs_is_wrong() {
    for runs_before in [true, false] {
        let mut told = Told::new();
        let id = told.add();
        if runs_before {
            told.run(id, 1);
        }
        told.oracle.client_gone(CLIENT);
        told.oracle.recovers(Process { boot: 2, ..CLIENT }, 0, &[].into());
        if !runs_before {
            told.run(id, 1);
        }
        told.assert_found(Kind::WrongReply, if runs_before { "C1" } else { "I9" });
    }
}

#[test]
fn a_call_is_not_told_to_have_run_and_then_not_to_have() {
    let mut told = Told::new();
    let id = told.add();
    told.oracle.cancelled(id);
    told.answer(id, Outcome::NotExecuted(Some(Code::Cancelled)));
    told.oracle.recovers(Process { boot: 2, ..CLIENT }, 0, &[id].into());
    told.answer(id, Outcome::Indeterminate(Some(Code::Cancelled)));
    told.assert_found(Kind::WrongReply, "first");
}

#[test]
fn a_call_without_an_end_is_unresolved() {
    let mut told = Told::new();
    let id = told.add();
    told.oracle.finish();
    told.assert_found(Kind::Unresolved, &format!("call {id} "));
}

#[test]
fn in_an_in_order_session_calls_run_one_after_the_other() {
    for (first, second, runs_on) in [(2, 1, false), (1, 2, true)] {
        let mut told = Told::new();
        let ids = [told.add(), told.add()];
        for &id in &ids {
            told.oracle.calls[id as usize].draft.order = Order::InOrder;
        }
        let xid = Some(Xid { session: 7, seq: first });
        told.oracle.begun(SERVER, ids[0], xid);
        if !runs_on {
            told.oracle.ended(SERVER, ids[0], xid);
        }
        told.oracle.begun(SERVER, ids[1], Some(Xid { session: 7, seq: second }));
        told.assert_found(Kind::WrongReply, "out of order");
    }
}

#[test]
fn a_call_that_was_put_off_runs_again() {
    let mut told = Told::new();
    let id = told.add();
    told.oracle.calls[id as usize].draft.order = Order::InOrder;
    let xid = Some(Xid { session: 7, seq: 1 });
    told.oracle.begun(SERVER, id, xid);
    told.oracle.put_off(SERVER, id, xid);
    let receipt = told.run(id, 1);
    told.answer(id, Outcome::Receipt(receipt));
    told.assert_well();
}

#[test]
fn a_ledger_that_does_not_add_up_is_found() {
    let mut told = Told::new();
    let id = told.add();
    let receipt = told.run(id, 1);
    told.answer(id, Outcome::Receipt(receipt));
    // Somebody adds behind everybody's back, and takes half a transfer.
    let ledger = told.ledgers.memory(0);
    data::apply(&mut *ledger.borrow_mut(), 1_000, &Operation::Add(5));
    told.oracle.finish();
    told.assert_found(Kind::Lost, "the counter");

    let mut told = Told::new();
    data::take(&mut *told.ledgers.memory(0).borrow_mut(), 1, 10);
    told.oracle.finish();
    told.assert_found(Kind::WrongReply, "the accounts");
}

#[test]
fn a_history_that_is_not_linearizable_is_found() {
    let mut told = Told::new();
    let put = told.call(Operation::Put(1, 10), Semantics::ExactlyOnce);
    let receipt = told.run(put, 1);
    told.answer(put, Outcome::Receipt(receipt));
    let get = told.call(Operation::Get(1), Semantics::ExactlyOnce);
    told.run(get, 2);
    let empty = Receipt::new(get, &Operation::Get(1), Value::List(vec![]));
    told.oracle.took_effect(get, empty.clone(), 0);
    told.answer(get, Outcome::Receipt(empty));
    told.oracle.finish();
    told.assert_found(Kind::WrongReply, "not linearizable");
}
