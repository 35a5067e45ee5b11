//! The heap against a sorted list, and the cases that callbacks make.

use super::*;

/// Marsaglia's xorshift64: enough randomness for a test, the same in each run.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn due<A>(timers: &mut Timers<A>, now: Instant) -> Vec<A> {
    timers.collect_due(now);
    std::iter::from_fn(|| timers.pop_due()).collect()
}

#[test]
fn timers_take_16_bytes_in_the_heap_and_24_in_the_slab() {
    assert!(size_of::<Entry>() <= 16);
    assert!(size_of::<Slot<crate::registry::Action<()>>>() <= 24);
    assert_eq!(size_of::<Option<TimerId>>(), 8);
}

#[test]
fn the_order_of_arming_survives_the_wrap_of_its_count() {
    let epoch = Instant::now();
    let mut timers = Timers::new(epoch);
    timers.armed = u32::MAX - 50;
    for name in 0..100 {
        timers.insert(epoch, name);
    }
    assert_eq!(due(&mut timers, epoch), Vec::from_iter(0..100));
}

#[test]
fn timers_of_one_instant_run_in_the_order_of_arming() {
    let epoch = Instant::now();
    let mut timers = Timers::new(epoch);
    for n in 0..100 {
        timers.insert(epoch, n);
    }
    assert_eq!(due(&mut timers, epoch), (0..100).collect::<Vec<_>>());
}

#[test]
fn timers_fire_at_their_deadline_and_not_a_nanosecond_before() {
    let epoch = Instant::now();
    let deadline = epoch + Duration::from_nanos(1001);
    let mut timers = Timers::new(epoch);
    timers.insert(deadline, ());
    assert_eq!(timers.next_deadline(), Some(deadline));
    assert!(due(&mut timers, deadline - Duration::from_nanos(1)).is_empty());
    assert_eq!(due(&mut timers, deadline).len(), 1);
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn timers_before_the_epoch_and_beyond_its_end_are_clamped() {
    let epoch = Instant::now();
    let mut timers = Timers::new(epoch + Duration::from_secs(10));
    timers.insert(epoch, "past");
    assert_eq!(due(&mut timers, epoch), ["past"]);
}

#[test]
fn timers_collected_can_be_cancelled_and_moved() {
    let epoch = Instant::now();
    let later = epoch + Duration::from_secs(1);
    let mut timers = Timers::new(epoch);
    timers.insert(epoch, "first");
    let second = timers.insert(epoch, "second");
    let third = timers.insert(epoch, "third");
    timers.collect_due(epoch);
    assert_eq!(timers.pop_due(), Some("first"));
    assert_eq!(timers.remove(second), Some("second"));
    assert_eq!(timers.remove(second), None);
    let moved = timers.rearm(third, later).unwrap();
    assert_ne!(moved, third);
    assert_eq!(timers.pop_due(), None);
    assert_eq!(timers.next_deadline(), Some(later));
    assert_eq!(timers.remove(moved), Some("third"));
    assert_eq!(timers.rearm(moved, later), None);
}

#[test]
fn timers_agree_with_a_sorted_list() {
    let epoch = Instant::now();
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    let mut timers = Timers::new(epoch);
    // (deadline, order of arming, name, id)
    let mut model: Vec<(u64, u64, u64, TimerId)> = Vec::new();
    let (mut now, mut order, mut fired) = (0, 0, 0);
    for name in 0..10_000 {
        order += 1;
        let at = now + random.below(1000);
        model.push((at, order, name, timers.insert(epoch + Duration::from_nanos(at), name)));
        match random.below(8) {
            0 => {
                let chosen = usize::try_from(random.below(model.len() as u64)).unwrap();
                let (_, _, name, id) = model.swap_remove(chosen);
                assert_eq!(timers.remove(id), Some(name));
                assert_eq!(timers.remove(id), None);
            }
            1 => {
                let chosen = usize::try_from(random.below(model.len() as u64)).unwrap();
                order += 1;
                let at = now + random.below(1000);
                let timer = &mut model[chosen];
                (timer.0, timer.1) = (at, order);
                timer.3 = timers.rearm(timer.3, epoch + Duration::from_nanos(at)).unwrap();
            }
            2 => {
                now += random.below(20);
                model.sort_unstable_by_key(|&(at, order, ..)| (at, order));
                let count = model.partition_point(|&(at, ..)| at <= now);
                let expected: Vec<u64> = model.drain(..count).map(|timer| timer.2).collect();
                assert_eq!(due(&mut timers, epoch + Duration::from_nanos(now)), expected);
                fired += count;
            }
            _ => {}
        }
        let next = model.iter().map(|timer| timer.0).min();
        assert_eq!(timers.next_deadline(), next.map(|at| epoch + Duration::from_nanos(at)));
    }
    assert!(fired > 1000 && !model.is_empty(), "{fired} fired, {} left", model.len());
    assert_eq!(due(&mut timers, epoch + Duration::from_secs(1)).len(), model.len());
    assert!(timers.heap.is_empty() && timers.slots.is_empty());
}
