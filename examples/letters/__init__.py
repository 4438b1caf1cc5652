"""A generator of letters: fonts to glyphs, glyphs to a class-conditional StyleGAN2, and what it is worth."""
