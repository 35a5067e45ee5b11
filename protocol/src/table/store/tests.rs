use std::time::Duration;

use super::*;

const SECRET: u128 = 7;

fn session(incarnation: u32) -> Record {
    Record::Session {
        sid: Sid { place: 1, secret: SECRET },
        principal: Principal::ANYONE,
        order: Order::Unordered,
        window: 8,
        incarnation,
        has_journal: false,
    }
}

fn start(seq: u64) -> Record {
    Record::Start { session: SECRET, seq, digest: seq, attempt: 1 }
}

fn complete(seq: u64, floor: u64) -> Record {
    let reply = Some(Bytes::from_static(b"reply"));
    Record::Complete { session: SECRET, seq, digest: seq, floor, reply }
}

#[test]
fn a_ledger_is_what_its_records_amount_to() {
    let mut ledger = Ledger::default();
    ledger.apply(&start(1));
    assert_eq!(ledger, Ledger::default(), "of no session");
    for record in [session(0), start(1), start(2), start(3), complete(1, 0), session(2)] {
        ledger.apply(&record);
    }
    let found = ledger.session(SECRET).expect("it is open");
    assert_eq!((found.incarnation, found.floor, found.entries.len()), (2, 0, 3));
    assert_eq!(found.entries[&2], Entry::Started { digest: 2, attempt: 1 });
    ledger.apply(&Record::Withdraw { session: SECRET, seq: 2 });
    ledger.apply(&complete(3, 1));
    let found = ledger.session(SECRET).expect("it is open");
    assert_eq!((found.floor, found.entries.len()), (1, 2), "the floor rises, entries stay");
    ledger.apply(&Record::Floor { session: SECRET, floor: 1 });
    let found = ledger.session(SECRET).expect("it is open");
    assert_eq!(found.entries.keys().collect::<Vec<_>>(), [&3]);
    ledger.apply(&Record::End { session: SECRET });
    assert_eq!(ledger, Ledger::default());
}

#[test]
fn a_crash_keeps_whole_commits_in_their_order() {
    for kept in 0..=3 {
        let now = Instant::now();
        let mut log = Log::new();
        for i in 1..=3_u8 {
            log.put(b"count", Some(&[i]));
            log.put(&[i], Some(b"x"));
            assert_eq!(log.commit(now), Lsn(i.into()));
        }
        log.put(b"count", Some(&[9]));
        assert_eq!(log.get(b"count"), Some(vec![9]), "the open transaction is seen");
        assert_eq!(log.get_safe(b"count"), None);
        log.crash(kept);
        let count = u8::try_from(kept).expect("it is small");
        assert_eq!(log.get(b"count"), (count > 0).then(|| vec![count]));
        assert_eq!(log.data().count(), if kept == 0 { 0 } else { kept + 1 });
        assert_eq!((log.unsafe_commits(), log.safe()), (0, Lsn(kept as u64)));
    }
}

#[test]
fn a_rollback_leaves_nothing() {
    let mut log = Log::new();
    log.write(session(0));
    log.put(b"key", Some(b"value"));
    log.rollback();
    log.commit(Instant::now());
    log.make_safe(1);
    assert_eq!((log.get(b"key"), log.ledger()), (None, &Ledger::default()));
}

#[test]
fn a_modelled_commit_is_safe_when_its_time_has_come() {
    let mut delays = [5, 1].into_iter();
    let disk = Disk::new(move || Duration::from_millis(delays.next().expect("two commits")));
    let (mut store, now) = (disk.open(), Instant::now());
    store.put(b"a", Some(b"1"));
    assert_eq!(store.commit(now), Lsn(1));
    store.put(b"b", Some(b"2"));
    assert_eq!(store.commit(now), Lsn(2));
    let due = now + Duration::from_millis(5);
    assert_eq!(store.next_deadline(), Some(due));
    assert_eq!(store.poll_safe(due - Duration::from_millis(1)), Ok(Lsn(0)));
    assert_eq!(store.poll_safe(due), Ok(Lsn(2)), "none overtakes another");
    assert_eq!(store.next_deadline(), None);
    assert_eq!(disk.log().get_safe(b"b"), Some(&b"2"[..]));
}

#[test]
fn a_failed_disk_calls_nothing_safe_until_it_is_opened_anew() {
    let disk = Disk::new(|| Duration::ZERO);
    let (mut store, now) = (disk.open(), Instant::now());
    store.put(b"a", Some(b"1"));
    store.commit(now);
    disk.fail("no space");
    let failed = store.poll_safe(now).expect_err("it fails");
    assert_eq!(failed.to_string(), "the store failed: no space");
    assert_eq!(store.poll_safe(now), Err(failed));
    disk.crash(1);
    let mut store = disk.open();
    assert_eq!((store.get(b"a"), store.poll_safe(now)), (Some(b"1".to_vec()), Ok(Lsn(1))));
}
