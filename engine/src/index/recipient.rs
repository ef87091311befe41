//! Who gets a notice, looked up at the moment it is sent.

use compact_str::CompactString;

use super::batch::Groups;
use super::names::{GuardianRef, PupilRef};
use super::places::SchoolRef;
use super::pupils::Standing;
use crate::ids::Personal;
use crate::notice::{Channel, Language};
use crate::registry::Guardian;

/// The references behind the names of a notice: what they refer to never changes while the process lives, and what is known
/// about it is looked up anew each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoticeRefs {
    /// About whom.
    pub(crate) pupil: PupilRef,
    /// To whom.
    pub(crate) guardian: GuardianRef,
    /// The school at whose gate the card was read.
    pub(crate) place: SchoolRef,
}

/// Where does a notice go?
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecipientQuestion {
    pub(crate) refs: NoticeRefs,
    pub(crate) channel: Channel,
}

/// Room for what a batch of such questions finds out; kept between batches.
#[derive(Default, Debug)]
pub(crate) struct RecipientRoom {
    pub(super) by_pupil: Groups<usize>,
    pub(super) by_guardian: Groups<usize>,
    pub(super) standings: Vec<Standing>,
    pub(super) reached: Vec<Option<(Personal, Language)>>,
    pub(super) pupil_names: Vec<Personal>,
}

/// Where a notice goes and what its text needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// The phone number, push token, e-mail address or LINE id, by the notice's channel; never empty.
    pub address: Personal,
    /// The language that the guardian reads.
    pub language: Language,
    /// The pupil's current name; empty when the roster has none.
    pub pupil_name: Personal,
    /// The current name of the school at whose gate the card was read; its code when it has none.
    pub place_name: CompactString,
}

/// Why a notice must not be sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Suppression {
    /// The guardian is not bound to the pupil now.
    Unbound,
    /// The guardian must not learn about the pupil.
    Protected,
    /// The guardian has no phone, token, address or id for the channel.
    NoAddress,
}

impl Suppression {
    /// The word used in the ledger and in labels.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Protected => "protected",
            Self::NoAddress => "no_address",
        }
    }
}

/// How to reach a guardian now.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    phone: Personal,
    email: Personal,
    app_token: Personal,
    line_user: Personal,
    language: Language,
}

impl Contact {
    pub(super) fn of(guardian: &Guardian) -> Self {
        Self {
            phone: guardian.phone.clone(),
            email: guardian.email.clone(),
            app_token: guardian.app_token.clone(),
            line_user: guardian.line_user.clone(),
            language: guardian.language,
        }
    }

    /// The address for `channel`, if there is one.
    fn address(&self, channel: Channel) -> Option<&Personal> {
        let address = match channel {
            Channel::App => &self.app_token,
            Channel::Email => &self.email,
            Channel::Line => &self.line_user,
            Channel::Sms => &self.phone,
        };
        (!address.is_empty()).then_some(address)
    }

    /// Whether there is an address for `channel`.
    pub(super) fn has_address(&self, channel: Channel) -> bool {
        self.address(channel).is_some()
    }

    /// How the guardian is reached through `channel`, if there is a way.
    pub(super) fn reached(&self, channel: Channel) -> Option<(Personal, Language)> {
        Some((self.address(channel)?.clone(), self.language))
    }
}
