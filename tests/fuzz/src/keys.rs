//! The keys of one gateway and one credential, for targets that must get past MAC and AEAD. All fixed.

use std::sync::LazyLock;

use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, ProofSecret, SessionKey,
    Slot, WallTime,
};

/// Now, for every target: a Saturday in 2026.
pub const NOW: WallTime = WallTime::from_millis(1_792_843_200_000);

/// What both ends of a knock know.
pub struct Keys {
    /// The gateway's key 0.
    pub knock: KnockSecret,
    /// The credential's.
    pub derived: DerivedKeys,
    /// Device and password.
    pub proof: ProofSecret,
    /// Of the session that is moved and closed.
    pub session: SessionKey,
}

/// Derived once; the fuzzer has better things to do.
pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let knock = KnockSecret::from_bytes([0x42; 32]);
    let gateway = GatewayId::of(&knock.public());
    let credential = CredentialId::from_bytes([7; 16]);
    Keys {
        derived: DerivedKeys::derive(&CredentialKey::from_bytes([9; 32]), gateway, credential),
        knock,
        proof: ProofSecret::from_seed(&[5; 32]),
        session: SessionKey::from_bytes([3; 32]),
    }
});

/// The slot of [`NOW`].
#[must_use]
pub const fn slot() -> Slot {
    NOW.slot()
}
