//! Whose sessions are whose, and how much each may have.
//!
//! All that a server bounds in all, it bounds for each principal, too, so that one cannot take what
//! the others need. Peers that nobody authenticated are one principal together: where the server
//! asks who its peers are, they get at most half of everything; where it does not, there is nobody
//! else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use slab::Slab;

use crate::limits::Limits;

/// Who a session belongs to: a number that the server has for whoever proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(pub u64);

impl Principal {
    /// Every peer that nobody authenticated.
    pub const ANYONE: Principal = Principal(0);
}

/// The account of [`Principal::ANYONE`].
pub(super) const ANYONE: u32 = 0;

/// What one principal has of the table.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) principal: Principal,
    pub(super) sessions: usize,
    /// Handlers that have started and not ended, also of sessions that are gone.
    pub(super) in_flight: usize,
    pub(super) argument_bytes: usize,
    pub(super) held_bytes: usize,
    pub(super) kept_bytes: usize,
    /// Sessions that may be evicted one day, by when they were detached.
    pub(super) clean: BTreeSet<(Instant, u64)>,
}

/// How much one principal may have.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) sessions: usize,
    pub(super) in_flight: usize,
    pub(super) argument_bytes: usize,
    pub(super) kept_bytes: usize,
}

/// An account among the others by how many sessions it has; among equals the one whose clean session
/// is the oldest comes last.
type Rank = (usize, Option<Reverse<Instant>>, u32);

/// The accounts of all principals that have something.
#[derive(Clone)]
pub(super) struct Accounts {
    list: Slab<Account>,
    by_principal: BTreeMap<Principal, u32>,
    by_sessions: BTreeSet<Rank>,
    /// The first account whose calls and bytes are counted here. Unauthenticated peers that are
    /// alone are none: all that there is is theirs, and what they have is counted as what the table
    /// has. It spares the usual server the counting twice.
    counted_from: u32,
    anyone: Share,
    each: Share,
}

impl Accounts {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut accounts = Accounts {
            list: Slab::new(),
            by_principal: BTreeMap::new(),
            by_sessions: BTreeSet::new(),
            counted_from: ANYONE + 1,
            anyone: Share::of_all(limits, 1),
            each: Share {
                sessions: limits.sessions_per_principal_max,
                in_flight: limits.in_flight_per_principal_max,
                argument_bytes: limits.in_flight_bytes_max,
                kept_bytes: limits.kept_reply_bytes_per_principal_max,
            },
        };
        let anyone = accounts.open(Principal::ANYONE);
        debug_assert_eq!(anyone, ANYONE);
        accounts
    }

    /// Returns the same shares, and nobody who has anything.
    pub(super) fn emptied(&self) -> Self {
        let mut accounts = Accounts {
            list: Slab::new(),
            by_principal: BTreeMap::new(),
            by_sessions: BTreeSet::new(),
            ..*self
        };
        accounts.open(Principal::ANYONE);
        accounts
    }

    /// Unauthenticated peers get half of everything. To be told before there is anybody.
    pub(super) fn divide(&mut self, limits: &Limits) {
        self.counted_from = ANYONE;
        self.anyone = Share::of_all(limits, 2);
    }

    /// Returns whether what this account has, beside its sessions, is counted here.
    #[inline]
    pub(super) fn is_counted(&self, account: u32) -> bool {
        account >= self.counted_from
    }

    /// Counts what an account has, if it is counted.
    #[inline]
    pub(super) fn count(&mut self, account: u32, count: impl FnOnce(&mut Account)) {
        if self.is_counted(account) {
            count(&mut self.list[account as usize]);
        }
    }

    /// Returns whether an account may keep so many bytes more, beside what its calls have reserved.
    #[inline]
    pub(super) fn can_keep(&self, account: u32, bytes: usize, reserved: usize) -> bool {
        if !self.is_counted(account) {
            return true;
        }
        let share = self.share(account).kept_bytes;
        let account = self.get(account);
        account.kept_bytes + bytes + account.in_flight * reserved <= share
    }

    pub(super) fn get(&self, account: u32) -> &Account {
        &self.list[account as usize]
    }

    pub(super) fn share(&self, account: u32) -> &Share {
        if account == ANYONE { &self.anyone } else { &self.each }
    }

    /// Returns the account of `principal`, if it has one, and whether it may have another session.
    pub(super) fn room(&self, principal: Principal) -> (Option<u32>, bool) {
        let account = self.by_principal.get(&principal).copied();
        let sessions = account.map_or(0, |account| self.get(account).sessions);
        let share = if principal == Principal::ANYONE { &self.anyone } else { &self.each };
        (account, sessions < share.sessions)
    }

    /// Returns the account that has the most sessions.
    pub(super) fn largest(&self) -> Option<u32> {
        self.by_sessions.last().map(|&(_, _, account)| account)
    }

    /// Counts a session of `principal`.
    pub(super) fn add_session(&mut self, principal: Principal) -> u32 {
        let known = self.by_principal.get(&principal).copied();
        let account = known.unwrap_or_else(|| self.open(principal));
        self.change(account, |account| account.sessions += 1);
        account
    }

    /// Counts a session less.
    pub(super) fn remove_session(&mut self, account: u32) {
        self.change(account, |account| account.sessions -= 1);
        self.tidy(account);
    }

    /// Notes that a session could be evicted: it was detached `since`.
    pub(super) fn add_clean(&mut self, account: u32, since: Instant, session: u64) {
        self.change(account, |account| account.clean.insert((since, session)));
    }

    /// Notes that it could not, or is gone.
    pub(super) fn remove_clean(&mut self, account: u32, since: Instant, session: u64) {
        self.change(account, |account| account.clean.remove(&(since, session)));
    }

    /// A handler ended whose session may be gone: forgets a principal that has nothing any more.
    #[inline]
    pub(super) fn tidy(&mut self, account: u32) {
        if account != ANYONE {
            self.forget_if_empty(account);
        }
    }

    fn forget_if_empty(&mut self, account: u32) {
        let this = self.get(account);
        if this.sessions == 0 && this.in_flight == 0 {
            self.by_sessions.remove(&this.rank(account));
            let this = self.list.remove(account as usize);
            self.by_principal.remove(&this.principal);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Account)> {
        self.by_principal.values().map(|&account| (account, self.get(account)))
    }

    fn open(&mut self, principal: Principal) -> u32 {
        let account = self.list.insert(Account {
            principal,
            sessions: 0,
            in_flight: 0,
            argument_bytes: 0,
            held_bytes: 0,
            kept_bytes: 0,
            clean: BTreeSet::new(),
        });
        let account = u32::try_from(account).expect("no more accounts than sessions and calls");
        self.by_principal.insert(principal, account);
        self.by_sessions.insert(self.get(account).rank(account));
        account
    }

    fn change<T>(&mut self, account: u32, change: impl FnOnce(&mut Account) -> T) {
        let this = &mut self.list[account as usize];
        let before = this.rank(account);
        change(this);
        let after = this.rank(account);
        if before != after {
            self.by_sessions.remove(&before);
            self.by_sessions.insert(after);
        }
    }

    /// Asserts that the order of the accounts is theirs.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.list.len(), self.by_principal.len());
        assert_eq!(self.list.len(), self.by_sessions.len());
        for (number, account) in self.iter() {
            assert!(self.by_sessions.contains(&account.rank(number)));
            let is_used = account.sessions > 0 || account.in_flight > 0;
            assert!(number == ANYONE || is_used, "a principal without anything is forgotten");
        }
    }
}

impl Account {
    fn rank(&self, account: u32) -> Rank {
        (self.sessions, self.clean.first().map(|&(since, _)| Reverse(since)), account)
    }
}

impl Share {
    fn of_all(limits: &Limits, parts: usize) -> Share {
        Share {
            sessions: limits.sessions_max.div_ceil(parts),
            in_flight: limits.in_flight_max.div_ceil(parts),
            argument_bytes: limits.in_flight_bytes_max.div_ceil(parts),
            kept_bytes: limits.kept_reply_bytes_max.div_ceil(parts),
        }
    }
}
