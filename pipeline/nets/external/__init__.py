"""Networks of packages that a user has installed, behind the teacher kind ``external``: nothing of them is known beforehand."""
