//! The layers of a knock, each on its own: what the MAC hides from the AEAD is shown by making
//! the MAC right again.

use super::*;
use crate::build::{Signer, build_knock};
use crate::ids::{CredentialId, GatewayId, SessionId};
use crate::proof::ProofSecret;
use crate::request::{Ask, OpenAsk, SecondFactor, Wanted};
use crate::secret::CredentialKey;
use crate::time::WallTime;

const SLOT: Slot = Slot::from_minutes(30_000_000);

struct World {
    knock_key: KnockSecret,
    keys: DerivedKeys,
    q: ProofSecret,
}

impl World {
    fn new() -> Self {
        let knock_key = KnockSecret::from_bytes([1; 32]);
        let gateway = GatewayId::of(&knock_key.public());
        let credential = CredentialId::from_bytes([2; 16]);
        let keys = DerivedKeys::derive(&CredentialKey::from_bytes([3; 32]), gateway, credential);
        Self {
            knock_key,
            keys,
            q: ProofSecret::from_seed(&[4; 32]),
        }
    }

    fn request(ask: Ask) -> Request {
        Request {
            ts: WallTime::from_millis(1),
            same_port: true,
            source: None,
            ask,
        }
    }

    fn open_request() -> Request {
        Self::request(Ask::Open(OpenAsk {
            minutes: 5,
            factor: SecondFactor::Totp(123_456),
            wanted: Wanted::All,
            wg_key: [9; 32],
            posture: None,
        }))
    }

    fn packet(&self, request: &Request, signer: Signer<'_>) -> [u8; KNOCK_LEN] {
        let (info, ext) = request.encode().unwrap();
        build_knock(
            &self.keys,
            0,
            &self.knock_key.public(),
            SLOT,
            [5; 32],
            &info,
            &ext,
            signer,
        )
        .unwrap()
        .0
    }

    fn knock(&self) -> [u8; KNOCK_LEN] {
        self.packet(&Self::open_request(), Signer::Password(&self.q))
    }

    fn open(&self, packet: &[u8]) -> Result<OpenedKnock, OpenError> {
        let verified = SealedKnock::parse(packet)
            .unwrap()
            .unmask(&self.keys, SLOT)
            .unwrap();
        verified.open(&self.keys, |kid| (kid == 0).then_some(&self.knock_key))
    }

    /// Changes the body of a packet and makes the outer layer right again.
    fn tampered(
        &self,
        packet: &[u8; KNOCK_LEN],
        change: impl FnOnce(&mut [u8; BODY_LEN]),
    ) -> [u8; KNOCK_LEN] {
        let sealed = SealedKnock::parse(packet).unwrap();
        let mut body = sealed.masked;
        mask(&self.keys.obf, &sealed.v, &mut body);
        change(&mut body);
        let v = self.keys.v(SLOT, &body);
        mask(&self.keys.obf, &v, &mut body);
        join(&[sealed.tag.as_bytes(), &v, &body])
    }
}

#[test]
fn a_knock_has_512_bytes_and_does_not_look_like_wireguard() {
    let mut packet = World::new().knock();
    assert_eq!(
        SealedKnock::parse(&packet[..511]).unwrap_err(),
        ShapeError::Length
    );
    assert_eq!(
        SealedKnock::parse(&[packet.as_slice(), &[0]].concat()).unwrap_err(),
        ShapeError::Length
    );
    assert!(SealedKnock::parse(&packet).is_ok());
    packet[..4].copy_from_slice(&[4, 0, 0, 0]);
    assert_eq!(
        SealedKnock::parse(&packet).unwrap_err(),
        ShapeError::WireGuard
    );
}

#[test]
fn a_knock_opens_as_it_was_made() {
    let world = World::new();
    let opened = world.open(&world.knock()).unwrap();
    assert_eq!(opened.request(), Ok(World::open_request()));
    assert!(bool::from(opened.verify_proof(&world.q.public())));
    assert!(!bool::from(
        opened.verify_proof(&ProofSecret::from_seed(&[8; 32]).public())
    ));
    assert_eq!((opened.kid(), opened.slot()), (0, SLOT));
}

#[test]
fn what_a_knock_shows_of_itself_is_what_was_sent() {
    let world = World::new();
    let packet = world.knock();
    let sealed = SealedKnock::parse(&packet).unwrap();
    assert_eq!(sealed.tag().as_bytes(), &packet[..8]);
    assert_eq!(sealed.v(), packet[8..16]);
    let other = world.tampered(&packet, |body| body[0] = 7);
    let verified = SealedKnock::parse(&other).unwrap();
    let verified = verified.unmask(&world.keys, SLOT).unwrap();
    assert_eq!((verified.kid(), verified.slot()), (7, SLOT));
    let opened = world.open(&packet).unwrap();
    let (info, ext) = World::open_request().encode().unwrap();
    assert_eq!((opened.info(), opened.ext()), (&info, &ext));
    let said = proof_message(opened.th1(), &info, &ext);
    assert!(bool::from(world.q.public().verify(&said, opened.proof())));
}

#[test]
fn a_session_signs_roam_and_close() {
    let world = World::new();
    let key = SessionKey::from_bytes([6; 32]);
    let request = World::request(Ask::Roam(SessionId::from_bytes([7; 8])));
    let opened = world
        .open(&world.packet(&request, Signer::Session(&key)))
        .unwrap();
    assert!(bool::from(opened.verify_session_proof(&key)));
    assert!(!bool::from(
        opened.verify_session_proof(&SessionKey::from_bytes([5; 32]))
    ));
    assert!(!bool::from(opened.verify_proof(&world.q.public())));
}

#[test]
fn any_flipped_bit_breaks_the_outer_layer() {
    let world = World::new();
    let packet = world.knock();
    for bit in 0..KNOCK_LEN * 8 {
        let mut flipped = packet;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let sealed = SealedKnock::parse(&flipped).unwrap();
        if bit < 64 {
            assert_ne!(sealed.tag(), world.keys.tag(SLOT), "bit {bit}");
        } else {
            assert_eq!(
                sealed.unmask(&world.keys, SLOT).unwrap_err(),
                MacMismatch,
                "bit {bit}"
            );
        }
    }
}

#[test]
fn any_flipped_bit_breaks_the_inner_layer_too() {
    let world = World::new();
    let packet = world.knock();
    for bit in 0..BODY_LEN * 8 {
        let flipped = world.tampered(&packet, |body| body[bit / 8] ^= 1 << (bit % 8));
        let expected = if bit < 8 {
            OpenError::UnknownKid
        } else {
            OpenError::Aead
        };
        assert_eq!(world.open(&flipped).unwrap_err(), expected, "bit {bit}");
    }
}

#[test]
fn a_knock_of_another_minute_key_or_gateway_is_not_ours() {
    let world = World::new();
    let sealed = SealedKnock::parse(&world.knock()).unwrap();
    let other_slot = Slot::from_minutes(SLOT.as_minutes() + 1);
    assert_eq!(
        sealed.unmask(&world.keys, other_slot).unwrap_err(),
        MacMismatch
    );
    let key = CredentialKey::from_bytes([3; 32]);
    let other_gateway = GatewayId::from_bytes([0; 16]);
    let other = DerivedKeys::derive(&key, other_gateway, world.keys.credential());
    assert_eq!(sealed.unmask(&other, SLOT).unwrap_err(), MacMismatch);
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    let world = World::new();
    let packet = world.tampered(&world.knock(), |body| body[1..33].fill(0));
    assert_eq!(world.open(&packet).unwrap_err(), OpenError::NotContributory);
}

#[test]
fn what_prints_prints_no_secret() {
    let world = World::new();
    let opened = world.open(&world.knock()).unwrap();
    let printed = std::format!(
        "{opened:?} {:?} {:?}",
        opened.request(),
        opened.reply_keys()
    );
    assert!(!printed.contains("123456"), "{printed}");
}
