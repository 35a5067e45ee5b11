//! The kinds of faults, and how often each has struck.

use std::fmt;
use std::ops::AddAssign;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes vanish.
    BlackHole,
    /// A clock runs at another rate.
    ClockDrift,
    /// A clock leaps forward.
    ClockLeap,
    /// A connection dies mid-frame.
    Cut,
    /// A segment is held up.
    Delay,
    /// One direction of a connection ends.
    HalfClose,
    /// A machine dies: silence.
    KillMachine,
    /// A process dies: its system closes its connections.
    KillProcess,
    /// A connection comes late, as from behind a proxy.
    Late,
    /// Bytes arrive one by one.
    OneByteRead,
    /// Bytes are taken one by one.
    OneByteWrite,
    /// Two hosts do not hear each other.
    PartitionBoth,
    /// One host does not hear the other.
    PartitionOne,
    /// A connection is reset.
    Reset,
    /// A turn or a readiness without a cause.
    Spurious,
    /// A host stands still.
    Stall,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::BlackHole,
        Self::ClockDrift,
        Self::ClockLeap,
        Self::Cut,
        Self::Delay,
        Self::HalfClose,
        Self::KillMachine,
        Self::KillProcess,
        Self::Late,
        Self::OneByteRead,
        Self::OneByteWrite,
        Self::PartitionBoth,
        Self::PartitionOne,
        Self::Reset,
        Self::Spurious,
        Self::Stall,
    ];

    /// Returns its name, in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlackHole => "black hole",
            Self::ClockDrift => "clock drift",
            Self::ClockLeap => "clock leap",
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::HalfClose => "half close",
            Self::KillMachine => "machine killed",
            Self::KillProcess => "process killed",
            Self::Late => "late connection",
            Self::OneByteRead => "one-byte reads",
            Self::OneByteWrite => "one-byte writes",
            Self::PartitionBoth => "partition both ways",
            Self::PartitionOne => "partition one way",
            Self::Reset => "reset",
            Self::Spurious => "spurious wake-up",
            Self::Stall => "stall",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind of fault has struck. Tallies of many seeds add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Tally {
    /// Returns how often this kind has struck.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Returns how often any has.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns each kind and its count.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().map(|fault| (fault, self.of(fault)))
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine += others;
        }
    }
}

impl fmt::Display for Tally {
    /// `cut 3, stall 1`: those that struck.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut struck = self.iter().filter(|&(_, count)| count > 0).peekable();
        if struck.peek().is_none() {
            return f.write_str("nothing");
        }
        for (i, (fault, count)) in struck.enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{fault} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_and_adds_up() {
        assert!(Fault::ALL.iter().enumerate().all(|(i, &fault)| fault as usize == i));
        let (mut a, mut b) = (Tally::default(), Tally::default());
        assert_eq!(a.to_string(), "nothing");
        a.add(Fault::Cut);
        b.add(Fault::Cut);
        b.add(Fault::Stall);
        a += &b;
        assert_eq!((a.of(Fault::Cut), a.of(Fault::Stall), a.total()), (2, 1, 3));
        assert_eq!(a.to_string(), "cut 2, stall 1");
    }
}
