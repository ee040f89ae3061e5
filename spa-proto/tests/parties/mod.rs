//! A gateway and a client that know each other, with values a test may choose.

use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, OpenedKnock, ProofSecret,
    SealedKnock, SessionKey, Slot, Transaction,
};

pub struct Parties {
    pub knock_key: KnockSecret,
    pub keys: DerivedKeys,
    pub q: ProofSecret,
    pub k_sess: SessionKey,
}

impl Parties {
    pub fn new(seed: u8) -> Self {
        let knock_key = KnockSecret::from_bytes([seed; 32]);
        let gateway = GatewayId::of(&knock_key.public());
        let credential = CredentialId::from_bytes([seed.wrapping_add(1); 16]);
        let key = CredentialKey::from_bytes([seed.wrapping_add(2); 32]);
        Self {
            keys: DerivedKeys::derive(&key, gateway, credential),
            knock_key,
            q: ProofSecret::from_seed(&[seed.wrapping_add(3); 32]),
            k_sess: SessionKey::from_bytes([seed.wrapping_add(4); 32]),
        }
    }

    /// The next packet of a transaction, signed as its op is.
    pub fn knock(&self, transaction: &mut Transaction, slot: Slot, e: [u8; 32]) -> [u8; 512] {
        use spa_proto::{Op, Signer};
        let signer = match transaction.op() {
            Op::Open | Op::Enrol => Signer::Password(&self.q),
            Op::Roam | Op::Close => Signer::Session(&self.k_sess),
        };
        transaction
            .knock(&self.keys, (3, &self.knock_key.public()), slot, e, signer)
            .expect("it can be built")
    }

    /// The gateway's way from bytes to an opened knock.
    pub fn open(&self, packet: &[u8], slot: Slot) -> Option<OpenedKnock> {
        let sealed = SealedKnock::parse(packet).ok()?;
        if sealed.tag() != self.keys.tag(slot) {
            return None;
        }
        let verified = sealed.unmask(&self.keys, slot).ok()?;
        verified
            .open(&self.keys, |kid| (kid == 3).then_some(&self.knock_key))
            .ok()
    }
}
