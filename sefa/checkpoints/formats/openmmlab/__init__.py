"""Files written by OpenMMLab's mmgeneration and mmagic."""
