//! A call that leaves at once is the same as one that is queued and sent: bytes, answers, deadlines.

use super::*;
use CellReport::{Finished, Running, Vacant};

/// Two sessions to which the same happens, but that one takes the short way where it may.
struct Twins {
    short: Bench,
    long: Bench,
    /// What the server has not answered.
    open: Vec<u64>,
    keys: Vec<CallKey>,
    left_at_once: u32,
    random: u64,
}

impl Twins {
    fn new(seed: u64) -> Twins {
        let now = Instant::now();
        let [short, long] = [(); 2].map(|()| {
            let mut bench =
                Bench::at(now, Limits { window: 4, body_bytes_max: 64, ..Limits::default() });
            bench.welcome();
            bench
        });
        Twins { short, long, open: Vec::new(), keys: Vec::new(), left_at_once: 0, random: seed }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % end
    }

    fn call(&mut self) {
        let semantics = match self.below(12) {
            0 => Semantics::AtLeastOnce,
            1 => Semantics::AtMostOnce,
            _ => Semantics::ExactlyOnce,
        };
        let mut spec = self.long.spec(semantics);
        match self.below(12) {
            0 => spec.deadline = None,
            1 => spec.deadline = Some(self.long.now),
            2 => spec.deadline = Some(self.long.now + millis(self.random % 3_000)),
            3 => spec.hedge_after = Some(millis(100)),
            4 => spec.attempts = 1,
            _ => {}
        }
        let number = u32::try_from(self.keys.len()).unwrap();
        let length = usize::from(self.below(10) == 0) * 100;
        let encode = |out: &mut Vec<u8>| match number % 50 {
            49 => Err("not to be encoded"),
            _ => {
                out.extend_from_slice(&number.to_be_bytes());
                out.resize(out.len() + length, 0xc0);
                Ok(())
            }
        };
        let Bench { session, now, out } = &mut self.short;
        let short = session.call_now(spec, number, encode, *now, Some(out));
        let long = self.long.session.call(spec, number, encode);
        let has_left = short.as_ref().is_ok_and(|taken| taken.has_left);
        self.left_at_once += u32::from(has_left);
        assert_eq!(short.map(|taken| taken.key), long);
        self.keys.extend(long);
        if has_left {
            self.long.session.transmit(self.long.now, &mut self.long.out);
            assert!(!self.short.session.wants_transmit(self.short.now));
            self.compare();
        } else {
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        for bench in [&mut self.short, &mut self.long] {
            bench.session.transmit(bench.now, &mut bench.out);
        }
        self.compare();
    }

    fn compare(&mut self) {
        let out = std::mem::take(&mut self.long.out);
        assert_eq!(std::mem::take(&mut self.short.out), out);
        let requests = parse(&out).into_iter().filter(|sent| sent.header.kind == Kind::Request);
        self.open.extend(requests.map(|sent| sent.header.seq));
        let (short, long) = (&mut self.short, &mut self.long);
        assert_eq!(short.session.next_deadline(), long.session.next_deadline());
        assert_eq!(short.session.counters(), long.session.counters());
        assert_eq!(short.session.len(), long.session.len());
        assert_eq!(short.ended(), long.ended());
    }

    fn both<R: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut Bench) -> R) -> R {
        let result = act(&mut self.short);
        assert_eq!(act(&mut self.long), result);
        result
    }

    fn step(&mut self) {
        match self.below(20) {
            0..8 => self.call(),
            8..15 if !self.open.is_empty() => {
                let at = usize::try_from(self.below(self.open.len() as u64)).unwrap();
                let seq = self.open.swap_remove(at);
                drop(match self.below(8) {
                    0 => self.both(|bench| bench.error(seq, Code::Busy, None)),
                    _ => self.both(|bench| bench.reply(seq)),
                });
            }
            15 if !self.keys.is_empty() => {
                let at = usize::try_from(self.below(self.keys.len() as u64)).unwrap();
                let key = self.keys[at];
                self.both(|bench| bench.session.cancel(key));
            }
            16 => {
                let reports = [Vacant, Finished, Running, Vacant];
                let floor = self.long.session.ring.floor();
                self.open.clear();
                self.both(|bench| bench.resume(floor, &reports));
            }
            _ => {
                let time = millis(self.below(700));
                self.both(|bench| {
                    bench.session.on_bytes(bench.now);
                    bench.wait(time);
                });
            }
        }
        if self.below(2) == 0 {
            self.transmit();
        }
    }
}

#[test]
fn the_short_way_leads_where_the_long_one_does() {
    let mut left_at_once = 0;
    for seed in 0..200 {
        let mut twins = Twins::new(seed);
        for _ in 0..150 {
            twins.step();
        }
        twins.transmit();
        left_at_once += twins.left_at_once;
    }
    assert!(left_at_once > 1_000, "{left_at_once} took the short way");
}

#[test]
fn nothing_is_overtaken() {
    let mut bench = Bench::ready();
    bench.call(1);
    let taken = bench.call_now(2);
    assert!(!taken.has_left, "one waits in front of it");
    assert_eq!(bench.requested(), [1, 2]);
    let taken = bench.call_now(3);
    assert!(taken.has_left);
    bench.session.cancel(taken.key);
    let taken = bench.call_now(4);
    assert!(!taken.has_left, "the server is first told of a cancelled one");
    let kinds: Vec<_> = bench.kinds();
    assert_eq!(kinds, [Kind::Request, Kind::Cancel, Kind::Request]);
    assert!(!bench.call_now(5).has_left, "the window is full");
}

impl Bench {
    fn call_now(&mut self, attached: u32) -> Taken {
        let spec = self.spec(Semantics::ExactlyOnce);
        let encode = |out: &mut Vec<u8>| {
            out.push(0xc0);
            Ok::<(), Infallible>(())
        };
        self.session.call_now(spec, attached, encode, self.now, Some(&mut self.out)).unwrap()
    }
}
