"""Grading a room: `python -m utils.grade FOLDER` (utils/grade.py), and what it can promise.

Who runs what. The grader reads files and writes the table; it never runs a learner's code. It
starts wardens, fresh Pythons that have loaded the course from a private copy. For each exercise a
warden forks one process, the judge, which takes from the submission only the answer and what the
answer uses (slices.py); check cells, experiments and patches of the notebook are not run. The
judge applies the course's own check in one of three ways (kinds.py):

* "apart" (26 of 50 exercises): numbers go to the answer and come back through a pipe; the answer
  runs in a process of its own (apart.py), and the judge's process runs no line of the learner's.
* "ranks" (12): the answer runs on the ranks that the check starts (on_ranks.py), not in the judge.
* "inside" (12): answers that take hooks, graphs or optimizers have to run where the check runs.
  What the check stands on is compared before and after (witness.py), and an answer that does
  nothing must still fail.

Around all of it (cage.py, warden.py): no capabilities; limits of time, memory, files and processes
for the whole tree, which is killed in the end, whatever it has forked; and where the kernel has
Landlock, no writing outside of a scratch folder (5.13) and no signals to outsiders (6.12).

Guaranteed, with Landlock: no submission changes another row, a file's content or a process of
anybody else, and "apart" no code of a learner's touches the process that decides.

Not guaranteed. Code "inside", or on a rank, could in principle rewrite the check around it, or what
it reports. That takes tools that no answer needs; screen.py marks these, and what passes with them
"needs a look" instead. A reader of texts can be outwitted. Permissions and times of files
(chmod) are not Landlock's: only a user of its own keeps those. Reading and the network are open:
ranks need the loopback device. An answer copied from somewhere passes.
"""
