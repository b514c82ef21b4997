//! Which secrets are tried first by whoever guesses.

use std::collections::BTreeSet;

/// What keys and letters follow on each other, in either direction.
const ROWS: [&str; 25] = [
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "yxcvbnm",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "qaz",
    "wsx",
    "147",
    "258",
    "369",
    "159",
    "357",
    "2580",
];

/// Words that examples and templates put where a secret belongs, and those that people do.
const WORDS: [&str; 66] = [
    "a",
    "admin",
    "baseball",
    "batman",
    "change",
    "changeit",
    "changeme",
    "choose",
    "client",
    "computer",
    "default",
    "dragon",
    "dummy",
    "enter",
    "example",
    "foo",
    "football",
    "freedom",
    "guest",
    "hello",
    "here",
    "i",
    "insert",
    "internet",
    "it",
    "key",
    "letmein",
    "login",
    "love",
    "master",
    "mcp",
    "me",
    "monkey",
    "my",
    "now",
    "oauth",
    "of",
    "pass",
    "passphrase",
    "password",
    "phrase",
    "placeholder",
    "please",
    "pokemon",
    "princess",
    "proxy",
    "replace",
    "root",
    "secret",
    "server",
    "shadow",
    "starwars",
    "summer",
    "sunshine",
    "superman",
    "test",
    "the",
    "this",
    "token",
    "user",
    "welcome",
    "whatever",
    "winter",
    "word",
    "you",
    "your",
];

/// What is written for a letter.
const LIKENESSES: [(char, char); 10] = [
    ('0', 'o'),
    ('1', 'i'),
    ('1', 'l'),
    ('!', 'i'),
    ('3', 'e'),
    ('4', 'a'),
    ('@', 'a'),
    ('5', 's'),
    ('$', 's'),
    ('7', 't'),
];

/// The shortest piece of a row, or of one character, that is no chance.
const SHORTEST_PIECE: usize = 3;
/// The longest text that is weak because it is only repeated.
const LONGEST_REPEATED: usize = 6;
/// The length from which on a text is no PIN.
const PASSPHRASE: usize = 12;

/// Whether `text` is of a kind that is tried first: common words and rows of keys and nothing else
/// but a number at the end, one short text again and again, or hardly any different characters.
pub(super) fn is_easily_guessed(text: &str) -> bool {
    let different: BTreeSet<char> = text.chars().collect();
    // A random six-digit PIN often has only three different digits; a passphrase never so few.
    let enough = if text.len() < PASSPHRASE { 3 } else { 5 };
    let plain: Vec<char> = text
        .chars()
        .filter(|character| character.is_alphanumeric() || "@$!".contains(*character))
        .flat_map(char::to_lowercase)
        .collect();
    let letters = plain.iter().rposition(|last| last.is_alphabetic());
    let unnumbered = &plain[..letters.map_or(0, |last| last + 1)];
    let every_second = |from| plain.iter().copied().skip(from).step_by(2).collect();
    let halves: [Vec<char>; 2] = [every_second(0), every_second(1)];
    different.len() < enough
        || is_repeated(&plain)
        || is_made_of_pieces(&plain)
        || is_made_of_pieces(unnumbered)
        || halves.iter().all(|half| is_made_of_pieces(half))
}

/// Whether it is one short text, again and again.
fn is_repeated(text: &[char]) -> bool {
    (1..=LONGEST_REPEATED.min(text.len() / 2)).any(|length| {
        let (first, rest) = text.split_at(length);
        text.len().is_multiple_of(length) && rest.chunks(length).all(|next| next == first)
    })
}

/// Whether it is words and pieces of rows, one after another.
fn is_made_of_pieces(text: &[char]) -> bool {
    // reachable[i]: the first i characters are.
    let mut reachable = vec![false; text.len() + 1];
    reachable[0] = true;
    for start in 0..text.len() {
        if !reachable[start] {
            continue;
        }
        let rest = &text[start..];
        for word in WORDS.iter().filter(|word| begins_with(rest, word)) {
            reachable[start + word.len()] = true;
        }
        for length in SHORTEST_PIECE..=rest.len() {
            if !is_piece(&rest[..length]) {
                break;
            }
            reachable[start + length] = true;
        }
    }
    !text.is_empty() && reachable[text.len()]
}

fn begins_with(text: &[char], word: &str) -> bool {
    // Short words are in every number.
    let may_be_like = word.len() > SHORTEST_PIECE;
    let is = |written: char, letter| {
        written == letter || (may_be_like && LIKENESSES.contains(&(written, letter)))
    };
    text.len() >= word.len()
        && text
            .iter()
            .zip(word.chars())
            .all(|(written, letter)| is(*written, letter))
}

/// Whether it is one character, or a piece of a row in either direction.
fn is_piece(text: &[char]) -> bool {
    let forward: String = text.iter().collect();
    let backward: String = text.iter().rev().collect();
    text.iter().all(|character| *character == text[0])
        || ROWS
            .iter()
            .any(|row| row.contains(&forward) || row.contains(&backward))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_patterns_are_easily_guessed() {
        for text in [
            "changemechangeme",
            "Change-Me-Please",
            "Change-Me-Please!",
            "your passphrase here",
            "passphrase123456",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "abcdefghijklmnop",
            "1234567890123",
            "987654",
            "------------",
            "123123",
            "112233",
            "123321",
            "480480",
            "159753",
            "147258369",
            "qwerty",
            "ytrewq",
            "abc123",
            "a1a2a3",
            "1qaz2wsx",
            "qwertyuiop12",
            "1q2w3e4r5t6y",
            "iloveyou1234",
            "passw0rd1234",
            "P@$$w0rd2026!",
            "abcabcabcabcde",
            "x7kx7kx7kx7kx7kx7k",
        ] {
            assert!(is_easily_guessed(text), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_easily_guessed() {
        for text in [
            "orange tractor wisdom sail",
            "the secret of lighthouse 7",
            "my dragon eats marzipan",
            "k7wq2z",
            "480193",
            "123480",
            "abc9f2",
            "пять случайных слов",
            "Zr0u2qYk8mPjX5vT",
            "3f9c0d41b87e52a6",
        ] {
            assert!(!is_easily_guessed(text), "{text}");
        }
    }

    #[test]
    fn hardly_any_pin_of_six_digits_is_easily_guessed() {
        let some = (0..1_000_000).step_by(101);
        let tried = some.clone().count();
        let guessed = some.filter(|pin| is_easily_guessed(&format!("{pin:06}")));
        assert!(guessed.count() < tried / 100);
    }
}
