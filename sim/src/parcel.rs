//! Long arguments and long replies, of which each byte tells whose it is.

use onceloop::reactor::sim::Random;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whose the contents are of which a byte is not what it should be.
const NOBODY: u32 = u32::MAX;

/// So many bytes, which no two owners have alike. They are made for the wire and looked at when they
/// come from there: in memory a parcel is no longer than its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parcel {
    pub(crate) of: u32,
    pub(crate) bytes: u32,
}

impl Parcel {
    /// Returns what is in it.
    fn contents(self) -> String {
        let bytes = self.bytes as usize;
        let mut random = Random::new(self.of.into());
        let mut text = Vec::with_capacity(bytes + 8);
        while text.len() < bytes {
            // Eight letters, from '0' to 'o'.
            let word = (random.next_u64() & 0x3f3f_3f3f_3f3f_3f3f) + 0x3030_3030_3030_3030;
            text.extend_from_slice(&word.to_le_bytes());
        }
        text.truncate(bytes);
        String::from_utf8(text).expect("letters")
    }

    /// Returns the parcel of which somebody says whose it is and what is in it: if that is not so,
    /// one of nobody's, which is right so far.
    fn unpacked(of: u32, contents: &str) -> Parcel {
        let bytes = u32::try_from(contents.len()).expect("a body is shorter");
        let parcel = Parcel { of, bytes };
        let expected = parcel.contents();
        match expected == contents {
            true => parcel,
            false => {
                let pairs = expected.bytes().zip(contents.bytes());
                let right = pairs.take_while(|(expected, found)| expected == found).count();
                Parcel { of: NOBODY, bytes: u32::try_from(right).expect("as above") }
            }
        }
    }
}

impl Serialize for Parcel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.of, self.contents()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Parcel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parcel, D::Error> {
        let (of, contents) = <(u32, &str)>::deserialize(deserializer)?;
        Ok(Parcel::unpacked(of, contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_known_by_each_of_its_bytes() {
        let parcel = Parcel { of: 7, bytes: 101 };
        let contents = parcel.contents();
        assert_eq!(contents.len(), 101);
        assert_eq!(Parcel::unpacked(7, &contents), parcel);
        assert_eq!(Parcel::unpacked(7, &contents[..100]), Parcel { of: 7, bytes: 100 });
        assert_eq!(Parcel::unpacked(8, &contents).of, NOBODY);
        let moved = [&contents[1..], &contents[..1]].concat();
        assert_eq!(Parcel::unpacked(7, &moved).of, NOBODY);
        for at in 0..101 {
            let (before, behind) = contents.split_at(at);
            let other = if behind.starts_with('0') { "1" } else { "0" };
            let changed = [before, other, &behind[1..]].concat();
            let right = u32::try_from(at).expect("a hundred");
            assert_eq!(Parcel::unpacked(7, &changed), Parcel { of: NOBODY, bytes: right });
        }
    }
}
