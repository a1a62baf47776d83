//! Words of a page that a server showed, for a terminal.

/// In one line of 80 characters at most, none of which moves the cursor or turns or hides text.
pub fn page_words(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|char| !is_tricky(*char)).take(80).collect()
}

/// Controls, and Unicode's bidirectional and zero-width formats.
pub fn is_tricky(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_words_steer_no_terminal() {
        assert_eq!(page_words(" a\u{1b}[2J\n b\u{202e}c "), "a[2J bc");
        assert_eq!(page_words(&"x".repeat(500)).len(), 80);
    }
}
