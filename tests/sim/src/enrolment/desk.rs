//! One gateway where people enrol: the core on its store and kernel, and what was promised of each invite (SPEC §14).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use spa_gateway_core::{
    Change, ClockTrust, Confirm, CredentialRow, Datagram, DeviceRef, Effect, EffectFailure,
    EffectKind, Gateway, InviteTerms, KeyKind, MAX_CANDIDATES, Moment, Now, PresentPeer, Record,
    Refusal, Snapshot,
};
use spa_proto::{CredentialId, DefaultRoute, Outcome, ProofPublic, ReplyError, WallTime};

use super::laptop::{Invited, Kind, Letter, person_of};
use crate::event::ClockSet;
use crate::host::Counting;
use crate::judge::{ANSWERED, GRANTED};
use crate::kernel::Kernel;
use crate::place;
use crate::store::copy_of;
use crate::turns;

type Checked = Result<(), String>;

/// SPEC §14: how long after the first ENROLLED a further ENROL is answered.
const ENROL_WITHIN: Duration = Duration::from_secs(600);

/// What is true of an invite, whatever the gateway thinks.
struct Ledger {
    until: WallTime,
    waived: bool,
    /// Whose Q was accepted first, and when.
    owner: Option<ProofPublic>,
    first: Option<WallTime>,
    /// It became a device: nobody enrols with it any more.
    used: bool,
    /// A second enroller showed it.
    void: bool,
}

/// A letter that was accepted, where from.
type Accepted = (Rc<Letter>, SocketAddr);

/// A gateway.
pub(super) struct Desk {
    number: usize,
    gateway: Option<Gateway>,
    store: Snapshot,
    pub(super) kernel: Kernel,
    entropy: Counting,
    pub(super) offset: i64,
    pub(super) trust: ClockTrust,
    pub(super) stalled: bool,
    pub(super) fail_store: u8,
    pub(super) clock_was_set: bool,
    ledgers: BTreeMap<CredentialId, Ledger>,
    waiting: Vec<Accepted>,
    permits: Vec<Accepted>,
    pub(super) replies: Vec<(Accepted, Box<[u8; 512]>)>,
    /// Packets that were answered, over crashes too.
    answered: BTreeSet<u32>,
    marks: BTreeMap<CredentialId, u64>,
    steps: BTreeMap<String, u64>,
    /// How many of each it came to.
    pub(super) enrolled: u32,
    pub(super) used: u32,
    pub(super) voided: u32,
    pub(super) late: u32,
}

impl Desk {
    pub(super) fn new(number: usize, now: Now) -> Result<Self, String> {
        let mut store = place::store(number);
        store.credentials.clear();
        let phones = store
            .persons
            .iter_mut()
            .filter_map(|person| person.totp.as_mut());
        phones.for_each(|totp| totp.proven = false);
        let mut desk = Self {
            number,
            gateway: None,
            store,
            kernel: Kernel::default(),
            entropy: Counting::of(number),
            offset: 0,
            trust: ClockTrust::Trusted,
            stalled: false,
            fail_store: 0,
            clock_was_set: false,
            ledgers: BTreeMap::new(),
            waiting: Vec::new(),
            permits: Vec::new(),
            replies: Vec::new(),
            answered: BTreeSet::new(),
            marks: BTreeMap::new(),
            steps: BTreeMap::new(),
            enrolled: 0,
            used: 0,
            voided: 0,
            late: 0,
        };
        desk.start(now)?;
        Ok(desk)
    }

    pub(super) const fn is_dead(&self) -> bool {
        self.gateway.is_none()
    }

    pub(super) fn due(&self) -> Option<Moment> {
        self.gateway.as_ref()?.poll_timeout()
    }

    /// Its own clock; `right` has the right time.
    pub(super) fn now(&self, right: Now) -> Now {
        let wall = right.wall.as_millis().saturating_add_signed(self.offset);
        Now {
            wall: WallTime::from_millis(wall),
            ..right
        }
    }

    /// Starts from what disk and kernel have; what only memory knew of an invite is gone.
    pub(super) fn start(&mut self, now: Now) -> Checked {
        self.kernel.new_table();
        let restored = Gateway::restore(
            place::settings(),
            copy_of(&self.store),
            place::policy(),
            now,
        );
        let mut gateway = restored.map_err(|error| error.to_string())?;
        gateway.handle_clock(self.trust, now);
        let present = |(wg_key, peer): (&[u8; 32], &crate::kernel::Peer)| PresentPeer {
            wg_key: *wg_key,
            state: peer.state,
        };
        let peers: Vec<PresentPeer> = self.kernel.peers.iter().map(present).collect();
        gateway.handle_start(&peers, now);
        self.gateway = Some(gateway);
        for (id, ledger) in &mut self.ledgers {
            let row = self.store.credentials.iter().find(|row| row.id == *id);
            ledger.owner = row.and_then(|row| row.proof);
            ledger.first = row.and_then(|row| row.enrolled);
            ledger.void = row.is_none();
        }
        self.stalled = false;
        self.settle(now)
    }

    /// Dies, after performing some effects of which it never hears.
    pub(super) fn kill(&mut self, after: u8, now: Now) -> Checked {
        for _ in 0..after {
            let Some(effect) = self.gateway.as_mut().and_then(Gateway::poll_effect) else {
                break;
            };
            self.perform(effect, now)?;
        }
        self.gateway = None;
        self.waiting.clear();
        self.permits.clear();
        self.replies.clear();
        Ok(())
    }

    /// Does all the work and performs all effects, unless it hangs.
    pub(super) fn settle(&mut self, now: Now) -> Checked {
        self.work(now)?;
        while !self.stalled && self.step(now)? {}
        Ok(())
    }

    pub(super) fn step(&mut self, now: Now) -> Result<bool, String> {
        let Some(effect) = self.gateway.as_mut().and_then(Gateway::poll_effect) else {
            return Ok(false);
        };
        let id = effect.id;
        let outcome = self.perform(effect, now)?;
        if let (Some(outcome), Some(gateway)) = (outcome, &mut self.gateway) {
            gateway.handle_performed(id, outcome, now);
        }
        self.work(now)?;
        Ok(true)
    }

    pub(super) fn ring(&mut self, now: Now) -> Checked {
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_timeout(now, &mut self.entropy);
        }
        self.settle(now)
    }

    pub(super) fn set_clock(&mut self, set: ClockSet, right: Now) -> Checked {
        match set {
            ClockSet::By(seconds) => self.offset += i64::from(seconds) * 1_000,
            ClockSet::Right => self.offset = 0,
            ClockSet::Untrusted => self.trust = ClockTrust::Untrusted,
            ClockSet::Trusted => self.trust = ClockTrust::Trusted,
        }
        self.clock_was_set |= matches!(set, ClockSet::By(_) | ClockSet::Right);
        let now = self.now(right);
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_clock(self.trust, now);
        }
        self.settle(now)
    }

    /// An administrator invites; gives the invite once it is on disk.
    pub(super) fn invite(
        &mut self,
        laptop: usize,
        terms: u8,
        now: Now,
    ) -> Result<Option<Invited>, String> {
        let Some(gateway) = &mut self.gateway else {
            return Ok(None);
        };
        let waived = terms.is_multiple_of(4);
        let terms = InviteTerms {
            valid: Duration::from_secs([60, 300, 900, 86_400][usize::from(terms / 4 % 4)]),
            confirm: if waived {
                Confirm::Waived
            } else {
                Confirm::ByWords
            },
        };
        let invited = gateway.invite(
            &place::name(person_of(laptop)),
            terms,
            now,
            &mut self.entropy,
        );
        let Ok(accepted) = invited else {
            return Ok(None);
        };
        let offer = accepted.value;
        self.settle(now)?;
        if !self
            .store
            .credentials
            .iter()
            .any(|row| row.id == offer.credential)
        {
            return Ok(None);
        }
        let ledger = Ledger {
            until: offer.until,
            waived,
            owner: None,
            first: None,
            used: false,
            void: false,
        };
        if self.ledgers.insert(offer.credential, ledger).is_some() {
            return Err("two invites have one id".into());
        }
        Ok(Some(Invited {
            gateway: self.number,
            credential: offer.credential,
            key: offer.key,
        }))
    }

    pub(super) fn administer(
        &mut self,
        laptop: usize,
        credential: CredentialId,
        revoke: bool,
        now: Now,
    ) -> Checked {
        let device = DeviceRef {
            person: place::name(person_of(laptop)),
            label: credential.to_string(),
        };
        match &mut self.gateway {
            Some(gateway) if revoke => drop(gateway.revoke_device(&device, now)),
            Some(gateway) => drop(gateway.confirm_device(&device)),
            None => {}
        }
        self.settle(now)
    }

    /// A packet arrives.
    pub(super) fn take(&mut self, letter: &Rc<Letter>, source: SocketAddr, now: Now) -> Checked {
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        let datagram = Datagram {
            payload: &letter.bytes,
            source,
            destination: place::address_of(self.number),
            on_loopback: false,
            fragment: false,
        };
        match gateway.handle_datagram(datagram, now) {
            Ok(()) if letter.gateway != self.number => {
                return Err("taken in at another gateway".into());
            }
            Ok(()) => {
                self.waiting
                    .retain(|(other, _)| other.credential != letter.credential);
                self.waiting.push((Rc::clone(letter), source));
            }
            Err(Refusal::CredentialExpired) => self.late += 1,
            Err(_) => {}
        }
        self.settle(now)
    }

    fn work(&mut self, now: Now) -> Checked {
        while let Some(gateway) = &mut self.gateway {
            let ids: Vec<_> = self
                .waiting
                .iter()
                .map(|(letter, _)| letter.credential)
                .collect();
            let before = turns::waiting(gateway, ids.clone());
            let Some(outcome) = gateway.handle_work(now, &mut self.entropy) else {
                break;
            };
            let after = turns::waiting(gateway, ids);
            let worked = before.into_iter().find(|id| !after.contains(id));
            let at = self
                .waiting
                .iter()
                .position(|(letter, _)| Some(letter.credential) == worked);
            let Some(at) = at else {
                return Err(format!("worked on nobody's knock: {outcome:?}"));
            };
            let (letter, source) = self.waiting.remove(at);
            // A refusal of step 11 is answered, and its marks count.
            if outcome.map_or_else(Refusal::step, |()| GRANTED) >= ANSWERED {
                self.accept(&letter, now)?;
                self.permits.push((letter, source));
                continue;
            }
            match outcome {
                Err(Refusal::OtherEnroller) => {
                    self.voided += 1;
                    self.ledger(letter.credential)?.void = true;
                }
                Err(Refusal::EnrolmentOver | Refusal::CredentialExpired) => self.late += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn ledger(&mut self, id: CredentialId) -> Result<&mut Ledger, String> {
        self.ledgers
            .get_mut(&id)
            .ok_or_else(|| "an invite that was never handed out".to_owned())
    }

    fn row(&self, id: CredentialId) -> Result<&CredentialRow, String> {
        let row = self.store.credentials.iter().find(|row| row.id == id);
        row.ok_or_else(|| "accepted without a credential on disk".to_owned())
    }

    /// A knock passed every check: whether it had to, by what is true of its invite.
    fn accept(&mut self, letter: &Letter, now: Now) -> Checked {
        let row = self.row(letter.credential)?;
        let candidates = row
            .keys
            .iter()
            .filter(|key| key.kind == KeyKind::Candidate)
            .count();
        let key = row
            .keys
            .iter()
            .find(|key| key.key == letter.key)
            .map(|key| key.kind);
        let ledger = self.ledger(letter.credential)?;
        let ensure = |holds: bool, what: &str| {
            if holds {
                Ok(())
            } else {
                Err(format!("{what}: {:?}", letter.kind))
            }
        };
        ensure(!ledger.void, "accepted under an invite that two have shown")?;
        ensure(
            ledger.owner.is_none_or(|owner| owner == letter.q),
            "accepted from somebody else than who enrolled",
        )?;
        match letter.kind {
            Kind::Enrol => {
                ensure(
                    key == Some(KeyKind::Invite),
                    "accepted without the invite's key",
                )?;
                ensure(!ledger.used, "an invite is used twice")?;
                ensure(now.wall < ledger.until, "an invite is used after its end")?;
                let first = *ledger.first.get_or_insert(now.wall);
                ensure(
                    now.wall.since(first) <= ENROL_WITHIN,
                    "enrolled after ten minutes",
                )?;
                ensure(candidates < MAX_CANDIDATES, "a seventh candidate")?;
                ledger.owner = Some(letter.q);
            }
            Kind::Open { .. } => {
                ensure(
                    matches!(key, Some(KeyKind::Candidate | KeyKind::Live)),
                    "opened under a key that is not on disk",
                )?;
            }
        }
        Ok(())
    }

    fn perform(
        &mut self,
        effect: Effect,
        now: Now,
    ) -> Result<Option<Result<(), EffectFailure>>, String> {
        match effect.kind {
            EffectKind::Record(_) if self.fail_store > 0 => {
                self.fail_store -= 1;
                Ok(Some(Err(EffectFailure::Store)))
            }
            EffectKind::Record(record) => self.record(record).map(|()| Some(Ok(()))),
            EffectKind::Order(order) => {
                self.kernel.obey(&order, now.mono);
                Ok(Some(Ok(())))
            }
            EffectKind::Observe { wg_key } => {
                let state = self.kernel.peers.get(&wg_key).map(|peer| peer.state);
                if let Some(gateway) = &mut self.gateway {
                    gateway.handle_peer(wg_key, state, now);
                }
                Ok(None)
            }
            EffectKind::Reply(reply) => self.reply(reply.to, reply.bytes, now).map(|()| None),
            EffectKind::CountFlows
            | EffectKind::CountConnections
            | EffectKind::Access(_)
            | EffectKind::Audit(_)
            | EffectKind::Answer { .. }
            | EffectKind::Event { .. } => Ok(None),
        }
    }

    fn record(&mut self, record: Record) -> Checked {
        for change in record.changes {
            self.check(&change)?;
            let activated = match &change {
                Change::CredentialActivated { credential, .. } => Some(*credential),
                _ => None,
            };
            self.store.apply(change);
            if let Some(id) = activated {
                self.used += 1;
                let row = self.row(id)?;
                let alone = matches!(row.keys.as_slice(), [key] if key.kind == KeyKind::Live);
                if !alone || row.invite_until.is_some() {
                    return Err(
                        "the invite's key and the other candidates outlive the first OPEN".into(),
                    );
                }
            }
        }
        Ok(())
    }

    fn check(&mut self, change: &Change) -> Checked {
        match change {
            Change::Answered { credential, ts } => rises(
                &mut self.marks,
                *credential,
                ts.as_millis(),
                "a transaction",
            ),
            Change::CodeUsed { person, step } => {
                rises(&mut self.steps, person.to_string(), *step, "a code")
            }
            Change::CandidateAdded {
                credential,
                number,
                proof,
                ..
            } => {
                let row = self.row(*credential)?;
                let fresh = row
                    .keys
                    .iter()
                    .all(|key| key.number != *number && key.kind != KeyKind::Live);
                if !fresh || row.proof.is_some_and(|before| before != *proof) {
                    return Err(format!(
                        "candidate {number} of a used invite, or of another Q"
                    ));
                }
                Ok(())
            }
            Change::CredentialActivated { credential, number } => {
                let row = self.row(*credential)?;
                let key = row.keys.iter().find(|key| key.number == *number);
                let opened = self
                    .permits
                    .iter()
                    .rev()
                    .find(|(letter, _)| letter.credential == *credential);
                let fits = key.zip(opened).is_some_and(|(key, (letter, _))| {
                    key.kind == KeyKind::Candidate
                        && key.key == letter.key
                        && letter.kind != Kind::Enrol
                });
                if !fits {
                    return Err("another key wins than the one that opened".into());
                }
                let ledger = self.ledger(*credential)?;
                if std::mem::replace(&mut ledger.used, true) {
                    return Err("an invite becomes two devices".into());
                }
                Ok(())
            }
            Change::SessionOpened(session) => {
                let row = self.row(session.credential)?;
                let asked = self.permits.iter().any(|(letter, _)| {
                    matches!(letter.kind, Kind::Open { wg_key, .. } if wg_key == session.wg_key)
                });
                let waived = self
                    .ledgers
                    .get(&session.credential)
                    .is_some_and(|ledger| ledger.waived);
                if !asked
                    || (!session.resources.is_empty() && !row.confirmed)
                    || (waived && !row.confirmed)
                {
                    return Err(format!("unconfirmed, and given {:?}", session.resources));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A reply leaves: for a knock that was accepted, once for each, and what it gives is on disk.
    fn reply(&mut self, to: SocketAddr, bytes: Box<[u8; 512]>, now: Now) -> Checked {
        let opened = self
            .permits
            .iter()
            .enumerate()
            .find_map(|(at, (letter, source))| {
                let opened =
                    letter
                        .pending
                        .open_reply(bytes.as_slice(), now.wall, DefaultRoute::Refuse);
                match opened {
                    Ok(opened) => Some((at, Some(opened))),
                    // It leaves late, or the clock was set since: the times in it look odd.
                    Err(ReplyError::Payload(_)) => Some((at, None)),
                    Err(_) => None,
                }
                .filter(|_| *source == to)
            });
        let Some((at, opened)) = opened else {
            return Err(format!("a reply to {to} that answers no accepted knock"));
        };
        let (letter, source) = self.permits.remove(at);
        if !self.answered.insert(letter.serial) {
            return Err("a packet is answered twice".into());
        }
        if let Some((payload, secrets)) = opened
            && let Outcome::Enrolled(_) = payload.outcome
        {
            self.enrolled += 1;
            let row = self.row(letter.credential)?;
            if !row
                .keys
                .iter()
                .any(|key| key.kind == KeyKind::Candidate && key.key == secrets.k_cred)
            {
                return Err("ENROLLED left before its candidate was on disk".into());
            }
        }
        self.replies.push(((letter, source), bytes));
        Ok(())
    }
}

/// A mark on disk never goes back, and none is set twice.
fn rises<K: Ord>(marks: &mut BTreeMap<K, u64>, of: K, mark: u64, what: &str) -> Checked {
    let before = marks.insert(of, mark);
    if before.is_some_and(|before| before >= mark) {
        return Err(format!(
            "{what} is marked twice, or an older one: {before:?} {mark}"
        ));
    }
    Ok(())
}
