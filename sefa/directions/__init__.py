"""How directions are found: SeFa in closed form, GANSpace by sampling."""
