//! New inputs out of a corpus, from a seed: the same seed and corpus always make the same inputs.
//!
//! Blind, where libFuzzer goes by what an input reaches; so it is fed with the decoder's own words.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::targets::Target;

/// Changes that one input gets at most.
const CHANGES_MAX: u32 = 6;
/// Longest stretch that is removed, repeated or taken over at once, in bytes.
const STRETCH_MAX: usize = 64;

/// Makes inputs for one target.
#[derive(Debug)]
pub struct Mutator<'corpus> {
    corpus: &'corpus [Vec<u8>],
    words: &'static [&'static str],
    len_max_bytes: usize,
    random: ChaCha8Rng,
}

impl<'corpus> Mutator<'corpus> {
    /// For `target`, out of `corpus`, which has at least one input.
    pub fn new(target: &Target, corpus: &'corpus [Vec<u8>], seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { corpus, words: target.words, len_max_bytes: target.len_max_bytes, random }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.one_of_the_corpus().to_vec();
        for _ in 0..self.random.random_range(1..=CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(self.len_max_bytes);
        input
    }

    fn one_of_the_corpus(&mut self) -> &'corpus [u8] {
        self.corpus.get(self.random.random_range(0..self.corpus.len().max(1))).map_or(b"", Vec::as_slice)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let place = self.random.random_range(0..=input.len());
        let end = (place + self.random.random_range(1..=STRETCH_MAX)).min(input.len());
        match self.random.random_range(0..9) {
            0 => {
                if let Some(byte) = input.get_mut(place) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(place) {
                    *byte = self.random.random();
                }
            }
            2 => drop(input.drain(place..end)),
            3 => {
                let stretch = input[place..end].to_vec();
                input.splice(place..place, stretch);
            }
            4 => {
                let number = self.random.random_range(-1..=70_000_i64).to_string();
                let digits = input[place..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                input.splice(place..place + digits, number.into_bytes());
            }
            5 => {
                let other = self.one_of_the_corpus();
                let from = self.random.random_range(0..=other.len());
                let until = (from + self.random.random_range(1..=STRETCH_MAX)).min(other.len());
                input.splice(place..end, other[from..until].iter().copied());
            }
            6 => input.truncate(place),
            _ => {
                let word = self.words.get(self.random.random_range(0..self.words.len().max(1)));
                let replaced = if self.random.random() { end } else { place };
                input.splice(place..replaced, word.copied().unwrap_or_default().bytes());
            }
        }
    }
}
