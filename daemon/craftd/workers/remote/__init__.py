"""Workers on other machines: the port that they come to, their certificates, and a handle's connection to one."""
