//! What became of each call, and how that is counted.

use onceloop::Ran;
use serde::Serialize;

use super::network::Harm;
use super::{Level, Policy};

/// What a caller was told of its call, finally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: the run was stopped.
    #[default]
    Nothing,
    /// An error: it did not run.
    NotRun,
    /// An error: it ran.
    Ran,
    /// The reply.
    Success,
    /// An error: it may have run.
    Unknown,
}

impl Told {
    pub(super) fn of(ran: Ran) -> Told {
        match ran {
            Ran::No => Told::NotRun,
            Ran::Unknown => Told::Unknown,
            Ran::Yes => Told::Ran,
        }
    }
}

/// One call, as the server and as its caller saw it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    /// How often its handler took effect.
    pub(super) effects: u32,
    pub(super) told: Told,
    /// How often its caller was told something final.
    pub(super) endings: u32,
    /// The reply was that of another call.
    pub(super) is_wrong_reply: bool,
}

/// What is counted of the calls of one policy at one level. Of all calls each is exactly one of
/// `run_once`, `run_twice`, `lost_not_run` and `lost_unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) calls: u64,
    /// One effect.
    pub(super) run_once: u64,
    /// Two effects or more.
    pub(super) run_twice: u64,
    /// No effect, and its caller was told so.
    pub(super) lost_not_run: u64,
    /// No effect, and its caller cannot know.
    pub(super) lost_unknown: u64,
    /// Of `run_once`: its caller got no success, so does not know, or not what the reply was.
    pub(super) run_untold: u64,
    /// Its caller was told what is not so: a success or "it ran" without an effect, "it did not run"
    /// with one, the reply of another call, or two ends.
    pub(super) wrong: u64,
    /// Not answered when the run was stopped.
    pub(super) unanswered: u64,
    /// Effects of all calls.
    pub(super) effects: u64,
}

impl Tally {
    pub(super) fn of(fates: &[Fate]) -> Tally {
        let mut tally = Tally::default();
        fates.iter().for_each(|fate| tally.add(fate));
        tally
    }

    fn add(&mut self, fate: &Fate) {
        self.calls += 1;
        self.effects += u64::from(fate.effects);
        self.unanswered += u64::from(fate.told == Told::Nothing);
        match fate.effects {
            0 if fate.told == Told::NotRun => self.lost_not_run += 1,
            0 => self.lost_unknown += 1,
            1 => {
                self.run_once += 1;
                self.run_untold += u64::from(fate.told != Told::Success);
            }
            2.. => self.run_twice += 1,
        }
        let is_false = match fate.told {
            Told::Nothing | Told::Unknown => false,
            Told::NotRun => fate.effects > 0,
            Told::Ran | Told::Success => fate.effects == 0,
        };
        self.wrong += u64::from(is_false || fate.is_wrong_reply || fate.endings > 1);
    }

    /// Returns how many calls left no effect.
    pub(super) fn lost(&self) -> u64 {
        self.lost_not_run + self.lost_unknown
    }
}

/// One policy at one level.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Row {
    pub(super) policy: Policy,
    /// Null: connections are not cut.
    pub(super) calls_per_cut: Level,
    pub(super) bytes_per_cut: Option<u64>,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) cuts: u64,
    pub(super) connections: u64,
    pub(super) seconds: f64,
}

impl Row {
    pub(super) fn new(
        policy: Policy,
        calls_per_cut: Level,
        bytes_per_cut: Option<u64>,
        tally: Tally,
        harm: Harm,
    ) -> Row {
        Row {
            policy,
            calls_per_cut,
            bytes_per_cut,
            tally,
            cuts: harm.cuts,
            connections: harm.connections,
            seconds: harm.time.as_secs_f64(),
        }
    }

    /// Returns whether the policy did what it promises.
    pub(super) fn is_kept(&self) -> bool {
        let tally = &self.tally;
        let is_as_promised = match self.policy {
            Policy::ExactlyOnce => tally.run_once == tally.calls && tally.run_untold == 0,
            Policy::AtMostOnce | Policy::NoRetry => tally.run_twice == 0,
            Policy::BlindRetry => tally.lost() == 0,
        };
        is_as_promised && tally.wrong == 0 && tally.unanswered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(effects: u32, told: Told) -> Fate {
        Fate { effects, told, endings: 1, is_wrong_reply: false }
    }

    #[test]
    fn every_call_is_counted_in_one_place() {
        let told = [Told::Nothing, Told::NotRun, Told::Ran, Told::Success, Told::Unknown];
        let fates: Vec<Fate> =
            told.iter().flat_map(|&told| [0, 1, 3].map(|effects| fate(effects, told))).collect();
        let tally = Tally::of(&fates);
        assert_eq!((tally.calls, tally.effects, tally.unanswered), (15, 20, 3));
        assert_eq!((tally.run_once, tally.run_twice), (5, 5));
        assert_eq!((tally.lost_not_run, tally.lost_unknown), (1, 4));
        assert_eq!(tally.run_untold, 4, "all that ran once but the success");
    }

    #[test]
    fn what_is_told_and_is_not_so_is_wrong() {
        for (effects, told, wrong) in [
            (0, Told::Success, 1),
            (0, Told::Ran, 1),
            (1, Told::NotRun, 1),
            (0, Told::NotRun, 0),
            (0, Told::Unknown, 0),
            (1, Told::Unknown, 0),
            (1, Told::Success, 0),
        ] {
            assert_eq!(Tally::of(&[fate(effects, told)]).wrong, wrong, "{effects} {told:?}");
        }
        let other = Fate { is_wrong_reply: true, ..fate(1, Told::Success) };
        assert_eq!(Tally::of(&[other]).wrong, 1);
        assert_eq!(Tally::of(&[Fate { endings: 2, ..fate(1, Told::Success) }]).wrong, 1);
    }
}
